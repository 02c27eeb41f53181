"""A driver without training: it speaks to the real API over HTTP as `workers.report` does.

Every figure that it reports is a function of the job and the step, so that a wrong one can be told.
"""

import asyncio
import random
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

import httpx
from fake_cluster import Started
from fake_driver import student

STEP_SECONDS = 0.06
STEPS_A_REPORT = 2
STEPS_A_CHECKPOINT = 3
REPEATED = 0.1
"""Share of the reports that are sent again as if their answer had been lost."""

FLAKY = "flaky"
"""A job whose name begins with this fails once by itself."""


def loss(job_id: str, step: int) -> float:
    """What job `job_id` reports of step `step`."""
    return zlib.crc32(f"{job_id}:{step}".encode()) / 2**32


class Fenced(Exception):
    """The control plane no longer wants this attempt."""


@dataclass
class Run:
    """The time in which one driver process did a job's work, in seconds of the monotonic clock."""

    job_id: str
    attempt_id: str
    started: float
    ended: float | None = None


@dataclass
class Drivers:
    """What all drivers share: the store's checkpoints, and the record of who worked when."""

    seed: int = 0
    runs: list[Run] = field(default_factory=list)
    checkpoints: dict[str, int] = field(default_factory=dict)
    failed_once: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    async def __call__(self, process: Started) -> int:
        env = process.env
        url = f"{env['FEWSTEP_URL']}/v1/attempts/{env['FEWSTEP_ATTEMPT_ID']}"
        headers = {"Authorization": f"Bearer {env['FEWSTEP_ATTEMPT_TOKEN']}"}
        async with httpx.AsyncClient(headers=headers, timeout=5, trust_env=False) as http:
            try:
                return await Attempt(self, http, url, random.Random(f"{self.seed}{len(self.runs)}")).run()
            except Fenced:
                return 1


class Attempt:
    """One driver process."""

    def __init__(self, shared: Drivers, http: httpx.AsyncClient, url: str, rng: random.Random) -> None:
        self.shared, self.http, self.url, self.rng = shared, http, url, rng
        self.waiting: list[dict[str, Any]] = []

    async def run(self) -> int:
        """Work until there is no more to do, or the control plane has another wish; returns the exit code."""
        order = await self.persist("GET", "")
        self.job_id: str = order["job_id"]
        self.last = order["acknowledged"]
        own = Run(self.job_id, order["attempt_id"], time.monotonic())
        self.shared.runs.append(own)
        try:
            return await self.work(order, own)
        finally:  # also when it is killed
            own.ended = own.ended or time.monotonic()

    async def work(self, order: dict[str, Any], own: Run) -> int:
        total, folder = order["spec"]["stages"][0]["method"]["iterations"], order["folder"]
        step = self.shared.checkpoints.get(self.job_id, 0)
        flaky = (order["spec"]["name"] or "").startswith(FLAKY) and self.job_id not in self.shared.failed_once
        wish = order["wish"]
        self.say("phase", phase="starting")
        self.say("sample", step=0, stage=0, role="teacher", sampling_steps=4, path=f"{folder}/t.png")
        self.say("phase", phase="training")
        while step < total and wish == "run":
            for _ in range(min(STEPS_A_REPORT, total - step)):
                step += 1
                await asyncio.sleep(STEP_SECONDS)
                self.say("metrics", step=step, stage=0, values={"loss": loss(self.job_id, step)})
                if step % STEPS_A_CHECKPOINT == 0:
                    await self.checkpoint(step, folder)
            if flaky and step >= total // 2:
                self.shared.failed_once.add(self.job_id)
                own.ended = time.monotonic()
                self.say("failure", reason="training_error", message="a flaky job fails once")
                await self.report()
                return 1
            self.say("log", message=f"step {step}")
            wish = await self.report()
        if wish != "run":
            await self.checkpoint(step, folder)
            own.ended = time.monotonic()  # what it says from here on is its last word
            self.say("stopped", wish=wish, step=step)
            await self.report()
            return 0
        await self.checkpoint(total, folder)
        self.say("phase", phase="evaluating")
        await self.report()
        self.say("phase", phase="exporting")
        self.say("sample", step=total, stage=0, role="student", sampling_steps=4, path=f"{folder}/s.png")
        self.waiting.append(self.number(student("consistency", folder) | {"method": "consistency"}))
        await self.report()
        own.ended = time.monotonic()
        self.say("done")
        await self.report()
        return 0

    async def checkpoint(self, step: int, folder: str) -> None:
        """Into the store when all before it was reported, since nobody will report it again; then into a report."""
        await self.report()
        self.shared.checkpoints[self.job_id] = step
        self.say("checkpoint", step=step, path=f"{folder}/run/step-{step:08d}", bytes=10)

    def say(self, kind: str, **fields: Any) -> None:
        self.waiting.append(self.number({"type": kind, **fields}))

    def number(self, observation: dict[str, Any]) -> dict[str, Any]:
        self.last += 1
        return {"seq": self.last, "at": time.time(), **observation}

    async def report(self) -> str:
        """Have all that waits acknowledged; returns the wish."""
        for _ in range(2 if self.rng.random() < REPEATED else 1):
            answer = await self.persist("POST", "/reports", {"observations": self.waiting})
        if answer["acknowledged"] != self.last:
            self.shared.complaints.append(f"{self.url}: {answer} where {self.last} were sent")
        self.waiting = []
        wish: str = answer["wish"]
        return wish

    async def persist(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask until there is an answer. Fenced."""
        pause = 0.05
        while True:
            try:
                answer = await self.http.request(method, self.url + path, json=body)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.is_success:
                content: dict[str, Any] = answer.json()
                return content
            if answer is not None and answer.is_client_error:
                if answer.json().get("code") != "attempt_fenced":
                    self.shared.complaints.append(f"{method} {self.url}{path}: {answer.status_code} {answer.text}")
                raise Fenced
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)
