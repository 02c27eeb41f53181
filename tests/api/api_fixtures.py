"""The API in this process, over the real store on both databases, with a fake cluster."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fake_cluster import FakeCluster
from fastapi import FastAPI
from service_fixtures import cluster, database_url, settings
from sqlalchemy import func, select
from typer.testing import CliRunner

from api.app import create_app
from api.cli import app as cli
from api.client import Client, explain
from api.deps import Services
from service.columns import Row
from service.settings import Settings

__all__ = ["cluster", "database_url", "settings"]

SPEC = {"teacher": "digits", "method": {"kind": "progressive"}}


@dataclass
class Server:
    """The application, and a client that holds its key."""

    app: FastAPI
    http: httpx.AsyncClient
    settings: Settings
    cluster: FakeCluster

    @property
    def behind(self) -> Services:
        services: Services = self.app.state.services
        return services

    async def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        async with self.behind.db.read() as session:
            return {
                table.name: (await session.execute(select(func.count()).select_from(table))).scalar_one()
                for table in Row.metadata.sorted_tables
            }

    async def submit(self, **changes: Any) -> dict[str, Any]:
        answer = await self.http.post("/v1/jobs", json={**SPEC, **changes})
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def tick(self) -> None:
        await self.behind.reconciler.tick()
        self.cluster.run_pending()

    async def attempt(self, job_id: str) -> httpx.AsyncClient:
        """A client that is the job's newest driver."""
        newest = (await self.http.get(f"/v1/jobs/{job_id}")).json()["attempts"][-1]["id"]
        (env,) = [one.env for one in self.cluster.started if one.env["FEWSTEP_ATTEMPT_ID"] == newest]
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url=f"http://test/v1/attempts/{env['FEWSTEP_ATTEMPT_ID']}",
            headers={"Authorization": f"Bearer {env['FEWSTEP_ATTEMPT_TOKEN']}"},
        )

    def write(self, path: str, content: bytes) -> None:
        """A file in the artifact store."""
        file = Path(self.settings.resolved_store_url().removeprefix("file://")) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def command_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[str]]:
    """Runs `fewstep` with these arguments against the server: its exit code, a space, and what it prints."""
    here = asyncio.get_running_loop()

    def call(_: Client, method: str, path: str, **kwargs: Any) -> httpx.Response:
        answer = asyncio.run_coroutine_threadsafe(server.http.request(method, path, **kwargs), here).result(60)
        if answer.is_error:
            raise explain(answer)
        return answer

    async def say(*arguments: str) -> str:
        said = await asyncio.to_thread(CliRunner().invoke, cli, [*arguments])
        return f"{said.exit_code} {said.output}"

    monkeypatch.setattr(Client, "call", call)
    monkeypatch.setenv("COLUMNS", "200")
    return say


@pytest_asyncio.fixture
async def server(settings: Settings, database_url: str, cluster: FakeCluster) -> AsyncIterator[Server]:
    settings = settings.model_copy(update={"database_url": database_url, "gateway_url": "http://127.0.0.1:9"})
    app = create_app(settings, cluster)
    async with app.router.lifespan_context(app):
        key = settings.api_key_file().read_text().strip()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
            yield Server(app, http, settings, cluster)


def safetensors(shapes: dict[str, list[int]]) -> bytes:
    """A file of zeros with these tensors."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4
        for n in shape:
            size *= n
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


@pytest.fixture
def teacher_files() -> Callable[..., dict[str, bytes]]:
    """The files of a small teacher; keyword arguments change its UNet's config."""

    def files(**changes: Any) -> dict[str, bytes]:
        unet = {"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1, **changes}
        shapes = {"conv_in.weight": [4, 1, 3, 3], "conv_out.weight": [1, 4, 3, 3], "class_embedding.weight": [11, 16]}
        return {
            "model_index.json": json.dumps({"_class_name": "DDIMPipeline"}).encode(),
            "scheduler/scheduler_config.json": json.dumps({"_class_name": "DDIMScheduler"}).encode(),
            "unet/config.json": json.dumps({"num_class_embeds": 11, **unet}).encode(),
            "unet/diffusion_pytorch_model.safetensors": safetensors(shapes),
        }

    return files
