"""The OpenAPI document against the running API: what it promises is what is answered, whatever is sent."""

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from api_fixtures import Server
from test_api_roles import Seeds, gateway

EXAMPLES = int(os.environ.get("FEWSTEP_TEST_EXAMPLES", "2"))
"""Generated requests per operation, besides the about 2,000 that cover each schema's limits."""


NAMING = (
    "submit_job",
    "validate_job",
    "register_teacher",
    "register_dataset",
    "create_endpoint",
    "create_key",
    "create_webhook",
)
"""Their bodies name a teacher, student, folder, project or host that must be there, or have rules between fields: no
schema can say so, hence a 422 to a body that fits its schema is right. Of every other route it would be an error."""


METHODS = ("ProgressiveSettings", "ConsistencySettings", "DMD2Settings")
"""They stand for all: the limits of forty methods' fields, each in a job and in a stage, would take an hour."""


def of_few_methods(part: Any) -> Any:
    """The document, with a choice of these methods alone."""
    if isinstance(part, list):
        return [of_few_methods(one) for one in part]
    if not isinstance(part, dict):
        return part
    if part.get("discriminator", {}).get("propertyName") == "kind":
        kept = {k: ref for k, ref in part["discriminator"]["mapping"].items() if ref.rsplit("/", 1)[1] in METHODS}
        assert len(kept) == len(METHODS)
        chosen = {
            "oneOf": [{"$ref": ref} for ref in kept.values()],
            "discriminator": {"propertyName": "kind", "mapping": kept},
        }
        return {**part, **chosen}
    return {key: of_few_methods(value) for key, value in part.items()}


def config() -> str:
    """Every check, on every operation, but for the one above."""
    excluded = "[[operations]]\ninclude-operation-id = '{}'\nchecks.positive_data_acceptance.enabled = false\n"
    return "\n".join(excluded.format(name) for name in NAMING)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_document_is_true(server: Server, teacher_files: object, tmp_path: Path) -> None:
    server.app.state.gateway = httpx.AsyncClient(transport=httpx.MockTransport(gateway), base_url="http://gateway")
    await Seeds(server).plant(teacher_files)
    (tmp_path / "schemathesis.toml").write_text(config())
    document = of_few_methods(server.app.openapi())
    server.app.openapi = lambda: document  # type: ignore[method-assign]
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does it for its own sockets alone
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/openapi.json"
    web = uvicorn.Server(uvicorn.Config(server.app, lifespan="off", log_level="error"))
    serving = asyncio.create_task(web.serve(sockets=[listener]))
    options = [
        "--mode=all",
        f"--max-examples={EXAMPLES}",
        "--seed=1",
        "--generation-deterministic",
        "--no-color",
        "--workers=1",
        f"--header=Authorization: {server.http.headers['authorization']}",
    ]
    schemathesis = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        url,
        *options,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await schemathesis.communicate()
    web.should_exit = True
    await serving
    assert schemathesis.returncode == 0, said.decode()
