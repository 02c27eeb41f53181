"""The one door to Ray: its Jobs and Serve REST APIs.

What Ray says is evidence, never truth: the database decides.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol


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


class ClusterUnavailable(Exception):
    """Ray did not answer, or answered with a server error: try again later, conclude nothing."""


class Cluster(Protocol):
    """Every call raises `ClusterUnavailable` when Ray cannot be asked."""

    async def submit(self, submission_id: str, env: dict[str, str]) -> None:
        """Start the driver with `env`; an id that Ray already knows is adopted silently."""

    async def jobs(self) -> dict[str, RayJob]:
        """Every submission that Ray knows, by id."""

    async def stop(self, submission_id: str) -> None:
        """Stop a submission; one that is over or unknown is left alone."""

    async def apply_serve(self, config: dict[str, Any]) -> None:
        """Make Serve's declared applications exactly those of `config` (the schema of PUT /api/serve/applications/)."""

    async def serve_apps(self) -> dict[str, ServeApp]:
        """Serve's applications by name; empty when Serve does not run."""

    async def close(self) -> None:
        """Let go of connections."""
