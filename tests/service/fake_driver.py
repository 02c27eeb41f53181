"""A driver that reports what a real one would, through the real store, one piece at a time."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from fake_cluster import FakeCluster, Started

from service import attempts
from service.cluster import RayStatus
from service.db import Database
from service.errors import AttemptFenced
from service.observations import Report
from service.status import Wish

FIGURES = {
    "frechet": 0.9,
    "kernel": 0.1,
    "accuracy": 0.98,
    "precision": 0.9,
    "recall": 0.8,
    "diversity": 1.0,
    "nearest_neighbour_ratio": 1.0,
    "ms_per_image": 1.5,
}


def student(label: str = "progressive-4", folder: str = "jobs/x") -> dict[str, Any]:
    return {
        "type": "student",
        "label": label,
        "method": "progressive",
        "stage": 0,
        "steps": [4],
        "path": f"{folder}/students/{label}",
        "grid": f"{folder}/students/{label}.png",
        "bytes": 1234,
        "sha256": hashlib.sha256(label.encode()).hexdigest(),
        "parameters": 99,
        "training_seconds": 3.5,
        "image_size": [1, 8, 8],
        "num_classes": 10,
        "figures": {4: FIGURES},
        "teacher_figures": {50: FIGURES, 4: FIGURES},
    }


def script(folder: str = "jobs/x", steps: int = 4) -> list[dict[str, Any]]:
    """All that a job says when nothing goes wrong."""
    metrics = [{"type": "metrics", "step": n, "stage": 0, "values": {"loss": 1 / n}} for n in range(1, steps + 1)]
    grid = {"type": "sample", "stage": 0}
    return [
        {"type": "phase", "phase": "starting"},
        {**grid, "step": 0, "role": "teacher", "sampling_steps": 50, "path": f"{folder}/t.png"},
        {"type": "phase", "phase": "training"},
        *metrics[: steps // 2],
        {"type": "log", "message": "half way"},
        {"type": "checkpoint", "step": steps // 2, "path": f"{folder}/checkpoints/{steps // 2}", "bytes": 10},
        *metrics[steps // 2 :],
        {
            "type": "sample",
            "step": steps,
            "stage": 0,
            "role": "student",
            "sampling_steps": 4,
            "path": f"{folder}/s.png",
        },
        {"type": "phase", "phase": "evaluating"},
        {"type": "log", "message": "judging"},
        {"type": "log", "message": "exporting"},
        student(folder=folder),
        {"type": "done"},
    ]


def report(*said: dict[str, Any], start: int = 1, writer: int | None = None) -> Report:
    numbered = [{"seq": start + i, "at": 1_700_000_000.0 + i, **one} for i, one in enumerate(said)]
    return Report.model_validate({"observations": numbered, "writer": writer})


@dataclass
class Driver:
    """Says its script in order, obeys wishes at each step, ends when it has said all or is no longer wanted."""

    db: Database
    process: Started
    script: list[dict[str, Any]] = field(default_factory=script)
    obeys: bool = True
    sends: int = 2
    said: int = 0
    writer: int | None = None

    @property
    def attempt_id(self) -> str:
        return self.process.env["FEWSTEP_ATTEMPT_ID"]

    async def step(self) -> None:
        """Report one more observation, `sends` times, as if the first answers had been lost."""
        if self.process.status is not RayStatus.RUNNING:
            return
        try:
            if self.writer is None:
                async with self.db.write() as session:
                    attempt, _ = await attempts.order(session, self.attempt_id)
                self.writer, self.said = attempt.writer, attempt.acknowledged
            if self.said == len(self.script):
                self.process.status = RayStatus.SUCCEEDED
                return
            wish = await self.speak()
        except AttemptFenced:
            self.process.status = RayStatus.FAILED
            return
        if wish is not Wish.RUN and self.obeys and self.said < len(self.script):
            await self._say({"type": "stopped", "wish": wish.value, "step": self.said})
            self.process.status = RayStatus.SUCCEEDED

    async def speak(self) -> Wish:
        """Report the next observation of the script."""
        wish = await self._say(self.script[self.said])
        self.said += 1
        return wish

    async def _say(self, observation: dict[str, Any]) -> Wish:
        body = report(observation, start=self.said + 1, writer=self.writer)
        for _ in range(self.sends):
            async with self.db.write() as session:
                answer = await attempts.report(session, self.attempt_id, body, await self.db.now(session))
        return answer.wish


@dataclass
class Drivers:
    """One driver for each process that the cluster started."""

    db: Database
    cluster: FakeCluster
    obey: bool = True
    sends: int = 2
    script: list[dict[str, Any]] = field(default_factory=script)
    drivers: dict[int, Driver] = field(default_factory=dict)

    async def step(self) -> None:
        for process in self.cluster.started:
            if process.status is RayStatus.RUNNING:
                fresh = Driver(self.db, process, self.script, obeys=self.obey, sends=self.sends)
                await self.drivers.setdefault(id(process), fresh).step()
