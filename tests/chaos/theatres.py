"""The two clusters of the chaos run: what can be killed there, and who worked when."""

import asyncio
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self

import psutil
from chaos_driver import Drivers, Run, loss
from eyes import Eyes
from fake_cluster import FakeCluster
from fake_ray import FakeRay
from real_ray import RealRay


class Theatre(Protocol):
    """A cluster under fire, with the load and the patience that suit it."""

    url: str
    token: str
    spec: dict[str, Any]
    lease_seconds: float
    cancel_deadline: float
    max_running: int
    most_open: int
    """Jobs that users keep open."""
    flaky: float
    sides: int
    """Kills at the same time."""
    pause: float
    """Seconds between two kills of one side, at most."""
    weights: tuple[float, float, float]
    """How often control plane, database and cluster are killed."""
    figure: Callable[[str, int], float] | None

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    async def kill(self, rng: random.Random) -> str | None:
        """Kill something; its name, or None when there was nothing to kill."""

    async def disturb(self, rng: random.Random) -> bool:
        """Lose answers for a moment; False when this cluster cannot."""

    async def look(self, eyes: Eyes) -> None:
        """Note who works now."""

    async def count_alive(self) -> int: ...

    def alive(self) -> list[str]:
        """Submission ids of live drivers."""

    def runs(self) -> list[Run]: ...

    def complaints(self) -> list[str]: ...


class FakeTheatre:
    """The cluster from memory: a job takes a second or two."""

    token = "chaos"
    lease_seconds, cancel_deadline, max_running, most_open = 5.0, 10.0, 6, 10
    flaky, sides, pause = 0.15, 3, 1.2
    weights = (0.5, 0.08, 0.42)
    figure = staticmethod(loss)

    def __init__(self, seed: int) -> None:
        self.drivers = Drivers(seed)
        self.ray = FakeRay(self.drivers, self.token)
        self.url = self.ray.url
        self.spec = {"teacher": "digits", "method": {"kind": "consistency", "iterations": 14}}

    def __enter__(self) -> Self:
        self.ray.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.ray.__exit__()

    async def kill(self, rng: random.Random) -> str | None:
        if rng.random() < 0.08:
            await asyncio.to_thread(self.ray.do, FakeCluster.lose_head)
            return "ray head"
        alive = await asyncio.to_thread(self.alive)
        if not alive:
            return None
        victim = rng.choice(alive)
        await asyncio.to_thread(self.ray.do, lambda cluster: _kill(cluster, victim))
        return "driver"

    async def disturb(self, rng: random.Random) -> bool:
        word = rng.choice(["lose_answers", "down"])
        await asyncio.to_thread(self.ray.do, lambda cluster: setattr(cluster, word, True))
        await asyncio.sleep(rng.uniform(0.1, 1.0))
        await asyncio.to_thread(self.ray.do, lambda cluster: setattr(cluster, word, False))
        return True

    async def look(self, eyes: Eyes) -> None:
        pass  # the drivers keep their own record

    async def count_alive(self) -> int:
        return len(await asyncio.to_thread(self.alive))

    def alive(self) -> list[str]:
        return self.ray.alive()

    def runs(self) -> list[Run]:
        return list(self.drivers.runs)

    def complaints(self) -> list[str]:
        return list(self.drivers.complaints)


def _kill(cluster: FakeCluster, victim: str) -> None:
    if victim in cluster.known and cluster.known[victim].alive:
        cluster.kill(victim)


class RealTheatre:
    """A real Ray with real training: a job takes half a minute on two cores."""

    lease_seconds, cancel_deadline, max_running, most_open = 5.0, 60.0, 2, 3
    flaky, sides, pause = 0.0, 1, 8.0
    weights = (0.5, 0.1, 0.4)
    figure = None  # every job has the same spec and seed, so the same figures

    def __init__(self, folder: Path) -> None:
        self.ray = RealRay(folder / "ray")
        self.url, self.token = self.ray.url, self.ray.token
        self.spec = {
            "teacher": "digits",
            "method": {"kind": "consistency", "iterations": 24, "batch_size": 16},
            "checkpoint_every": 5,
            "preview_every": 1000,
            "evaluation": {"samples": 100, "teacher_steps": 4},
        }
        self._seen: dict[str, tuple[float, float]] = {}
        self._attempts: dict[str, tuple[str, str, float | None]] = {}

    def __enter__(self) -> Self:
        self.ray.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.ray.__exit__()

    async def kill(self, rng: random.Random) -> str | None:
        chance = rng.random()
        if chance < 0.2:
            await asyncio.to_thread(self.ray.lose_head)
            return "ray head"
        name, find = ("driver", self.ray.drivers) if chance < 0.6 else ("training worker", self.ray.workers)
        alive = await asyncio.to_thread(find)
        if not alive:
            return None
        try:
            alive[rng.choice(sorted(alive))].send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return None
        return name

    async def disturb(self, rng: random.Random) -> bool:
        return False

    async def look(self, eyes: Eyes) -> None:
        now = time.time()
        for attempt_id in await asyncio.to_thread(self.ray.drivers):
            first, _ = self._seen.get(attempt_id, (now, now))
            self._seen[attempt_id] = (first, now)
        await asyncio.sleep(0.3)
        for attempt_id, job_id, submission_id, outcome, last in await eyes.fetch(
            "SELECT id, job_id, submission_id, outcome, extract(epoch FROM last_report_at) FROM attempts"
        ):
            self._attempts[attempt_id] = (job_id, submission_id, float(last) if outcome else None)

    async def count_alive(self) -> int:
        return len(await asyncio.to_thread(self.alive))

    def alive(self) -> list[str]:
        return [self._attempts[attempt_id][1] for attempt_id in self.ray.drivers() if attempt_id in self._attempts]

    def runs(self) -> list[Run]:
        """From the first to the last sight of each driver; one that has said its last word works no more."""
        found = []
        for attempt_id, (first, last) in self._seen.items():
            if attempt_id in self._attempts:
                job_id, _, last_word = self._attempts[attempt_id]
                found.append(Run(job_id, attempt_id, first, min(last, last_word or last)))
        return found

    def complaints(self) -> list[str]:
        return []
