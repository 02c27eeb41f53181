"""The one door to Ray: its Jobs and Serve REST APIs.

What Ray says is evidence, never truth: the database decides.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import httpx

from service.settings import Settings

ENTRYPOINT = "exec python -m workers.driver"
"""Ray runs it through a shell; `exec` leaves no shell behind that would outlive a killed head."""

JOB_ENV = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "20"}
"""How Ray stops a driver: SIGINT is the signal on which Ray Train ends its workers before it goes."""


MOST_NODES = 10_000
"""Ray answers no more than this at once."""


class RayStatus(StrEnum):
    """Ray's own job states."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class RayJob:
    """What Ray shows of one submission."""

    submission_id: str
    status: RayStatus
    message: str

    @property
    def over(self) -> bool:
        return self.status in (RayStatus.STOPPED, RayStatus.SUCCEEDED, RayStatus.FAILED)


@dataclass(frozen=True)
class ServeApp:
    """What Ray Serve shows of one application; status is Serve's own word (RUNNING, DEPLOYING, DEPLOY_FAILED ...)."""

    name: str
    status: str
    message: str


@dataclass(frozen=True)
class NodeSeen:
    """A machine that is alive, and what it has in all: logical CPUs and GPUs, in use or not."""

    id: str
    cpus: float
    gpus: float


class ClusterUnavailable(Exception):
    """Ray did not answer, or answered with a server error: try again later, conclude nothing."""


class Cluster(Protocol):
    """Every call raises `ClusterUnavailable` when Ray cannot be asked."""

    async def submit(self, submission_id: str, env: dict[str, str]) -> None:
        """Start the driver with `env`; an id that Ray already knows is adopted silently.

        The driver reads FEWSTEP_URL, FEWSTEP_ATTEMPT_ID and FEWSTEP_ATTEMPT_TOKEN.
        """

    async def jobs(self) -> dict[str, RayJob]:
        """Every submission that Ray knows, by id."""

    async def nodes(self) -> list[NodeSeen]:
        """Every machine that is alive now."""

    async def stop(self, submission_id: str) -> None:
        """Stop a submission; one that is over or unknown is left alone."""

    async def apply_serve(self, config: dict[str, Any]) -> None:
        """Make Serve's declared applications exactly those of `config` (the schema of PUT /api/serve/applications/)."""

    async def serve_apps(self) -> dict[str, ServeApp]:
        """Serve's applications by name; empty when Serve does not run."""

    async def close(self) -> None:
        """Let go of connections."""


class RayCluster:
    """A `Cluster` over Ray's own HTTP API, which asks for a bearer token where one is set."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        token = settings.ray_token.get_secret_value()
        self._http = httpx.AsyncClient(
            base_url=settings.ray_dashboard_url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(30, connect=3),
            trust_env=False,
            transport=transport,
        )

    async def submit(self, submission_id: str, env: dict[str, str]) -> None:
        answer = await self._ask(
            "POST",
            "/api/jobs/",
            json={
                "entrypoint": ENTRYPOINT,
                "submission_id": submission_id,
                "runtime_env": {"env_vars": {**JOB_ENV, **env}},
            },
        )
        if answer.is_error and "already exists" not in answer.text:  # Ray has no type or code for it, only this text
            raise self._refused(answer)

    async def jobs(self) -> dict[str, RayJob]:
        return {
            found["submission_id"]: RayJob(
                found["submission_id"], RayStatus(found["status"]), found.get("message") or ""
            )
            for found in (await self._ok("GET", "/api/jobs/")).json()
            if found.get("submission_id")  # drivers that were not submitted have none
        }

    async def nodes(self) -> list[NodeSeen]:
        alive = {"filter_keys": "state", "filter_predicates": "=", "filter_values": "ALIVE", "limit": MOST_NODES}
        found = (await self._ok("GET", "/api/v0/nodes", params=alive)).json()["data"]["result"]["result"]
        return [
            NodeSeen(node["node_id"], node["resources_total"].get("CPU", 0.0), node["resources_total"].get("GPU", 0.0))
            for node in found
        ]

    async def stop(self, submission_id: str) -> None:
        answer = await self._ask("POST", f"/api/jobs/{submission_id}/stop")
        if answer.is_error and answer.status_code != 404:
            raise self._refused(answer)

    async def apply_serve(self, config: dict[str, Any]) -> None:
        # The first call starts Serve's controller, which takes seconds.
        await self._ok("PUT", "/api/serve/applications/", json=config, timeout=90)

    async def serve_apps(self) -> dict[str, ServeApp]:
        found = (await self._ok("GET", "/api/serve/applications/")).json()
        return {
            name: ServeApp(name, app["status"], app.get("message") or "") for name, app in found["applications"].items()
        }

    async def close(self) -> None:
        await self._http.aclose()

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ClusterUnavailable(f"{method} {path}: {type(error).__name__} {error}") from error

    async def _ok(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = await self._ask(method, path, **options)
        if answer.is_error:
            raise self._refused(answer)
        return answer

    @staticmethod
    def _refused(answer: httpx.Response) -> ClusterUnavailable:
        request = answer.request
        return ClusterUnavailable(f"{request.method} {request.url.path}: {answer.status_code} {answer.text[-500:]}")
