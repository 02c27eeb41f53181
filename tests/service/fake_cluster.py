"""A cluster from memory with Ray's own manners.

An id is never free again while the head lives; stopping takes effect later, and not at all while a job is pending; a
lost head forgets every job and application; an answer may be lost after the deed.
"""

from dataclasses import dataclass, field
from typing import Any

from service.cluster import ClusterUnavailable, NodeSeen, RayJob, RayStatus, ServeApp


@dataclass
class Started:
    """One driver process."""

    submission_id: str
    env: dict[str, str]
    status: RayStatus = RayStatus.PENDING
    message: str = ""
    stopping: bool = False

    @property
    def alive(self) -> bool:
        return self.status in (RayStatus.PENDING, RayStatus.RUNNING)


@dataclass
class FakeCluster:
    known: dict[str, Started] = field(default_factory=dict)
    """What the head knows."""
    heads_lost: int = 0
    started: list[Started] = field(default_factory=list)
    """Every driver process there ever was."""
    apps: dict[str, ServeApp] = field(default_factory=dict)
    puts: list[dict[str, Any]] = field(default_factory=list)
    machines: list[NodeSeen] = field(default_factory=lambda: [NodeSeen("node-0", cpus=4, gpus=0)])
    """Those that are alive."""
    down: bool = False
    lose_answers: bool = False

    def _reach(self) -> None:
        if self.down:
            raise ClusterUnavailable("the head does not answer")

    def _answer(self) -> None:
        if self.lose_answers:
            raise ClusterUnavailable("the answer was lost")

    async def submit(self, submission_id: str, env: dict[str, str]) -> None:
        self._reach()
        if submission_id not in self.known:
            self.known[submission_id] = Started(submission_id, env)
            self.started.append(self.known[submission_id])
        self._answer()

    async def jobs(self) -> dict[str, RayJob]:
        self._reach()
        return {name: RayJob(name, job.status, job.message) for name, job in self.known.items()}

    async def nodes(self) -> list[NodeSeen]:
        self._reach()
        return list(self.machines)

    async def stop(self, submission_id: str) -> None:
        self._reach()
        if submission_id in self.known:
            self.known[submission_id].stopping = True
        self._answer()

    async def apply_serve(self, config: dict[str, Any]) -> None:
        self._reach()
        self.puts.append(config)
        names = [app["name"] for app in config["applications"]]
        self.apps = {name: self.apps.get(name, ServeApp(name, "DEPLOYING", "")) for name in names}
        self._answer()

    async def serve_apps(self) -> dict[str, ServeApp]:
        self._reach()
        return dict(self.apps)

    async def close(self) -> None:
        pass

    # what happens inside, at the test's word

    def run_pending(self) -> None:
        for job in self.known.values():
            if job.status is RayStatus.PENDING:
                job.status = RayStatus.RUNNING

    def settle_stops(self) -> None:
        for job in self.known.values():
            if job.stopping and job.status is RayStatus.RUNNING:
                job.status, job.message = RayStatus.STOPPED, "Job was intentionally stopped."

    def kill(self, submission_id: str) -> None:
        job = self.known[submission_id]
        job.status, job.message = RayStatus.FAILED, "driver exit code 137"

    def lose_head(self) -> None:
        """All daemons and processes die, and nothing was written down."""
        for job in self.known.values():
            if job.alive:
                job.status = RayStatus.FAILED
        self.heads_lost += 1
        self.known = {}
        self.apps = {}

    def apps_become(self, status: str, message: str = "") -> None:
        self.apps = {name: ServeApp(name, status, message) for name in self.apps}
