"""Users of the control plane: they submit, change their minds, and repeat every request until it is answered."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Users:
    """Each key makes one job, whatever happens to the requests on their way."""

    urls: list[str]
    api_key: str
    spec: dict[str, Any]
    rng: random.Random
    most_open: int
    flaky: float = 0.15
    """Share of the jobs that fail once by themselves."""
    changes: float = 0.3
    """Share of the jobs that are cancelled, or paused and resumed."""
    accepted: dict[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    open: int = 0
    """Jobs that are not over; kept by who can see it."""
    submitted: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Keep `most_open` jobs going until `stop`, then finish what was begun."""
        async with httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self.api_key}"}, timeout=5, trust_env=False
        ) as self.http:
            going: set[asyncio.Task[None]] = set()
            while not stop.is_set():
                submitting = self.submitted - len(self.accepted)
                if self.open + submitting < self.most_open:
                    self.submitted += 1
                    going.add(asyncio.create_task(self._one(self.submitted)))
                going = {task for task in going if not task.done() or task.result()}
                await asyncio.sleep(0.05)
            await asyncio.gather(*going)

    async def resume_all(self) -> None:
        """Have every job that is paused go on."""
        async with httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self.api_key}"}, timeout=5, trust_env=False
        ) as self.http:
            await asyncio.gather(*(self._act(job_id, "resume") for job_id in self.accepted.values()))

    async def _one(self, number: int) -> None:
        """One user with one job."""
        rng = random.Random(self.rng.random())
        key = f"{'flaky' if rng.random() < self.flaky else 'job'}-{number:05d}"
        spec = self.spec | {"name": key, "priority": rng.choice([0, 0, 0, 1, 2, -1]), "max_failures": 1}
        tries = [self._submit(key, spec, rng) for _ in range(2 if rng.random() < 0.2 else 1)]
        answers = await asyncio.gather(*tries)
        if rng.random() < 0.2:
            answers.append(await self._submit(key, spec, rng))
        if len(set(answers)) != 1:
            self.complaints.append(f"doubled: {key} was answered with {answers}")
        self.accepted[key] = answers[0]
        if rng.random() < self.changes:
            await asyncio.sleep(rng.uniform(0, 2))
            if rng.random() < 0.4:
                await self._act(answers[0], "cancel")
            else:
                await self._act(answers[0], "pause")
                await asyncio.sleep(rng.uniform(0, 1.5))
                await self._act(answers[0], "resume")

    async def _submit(self, key: str, spec: dict[str, Any], rng: random.Random) -> str:
        """The job's id, when some control plane has answered."""
        while True:
            answer = await self._ask("POST", rng.choice(self.urls) + "/v1/jobs", json=spec, key=key)
            if answer is not None and answer.status_code == 202:
                job_id: str = answer.json()["id"]
                return job_id
            if answer is not None and answer.status_code != 409:  # 409: the same request is being answered elsewhere
                self.complaints.append(f"submit {key}: {answer.status_code} {answer.text}")
            await asyncio.sleep(rng.uniform(0.05, 0.2))

    async def _act(self, job_id: str, deed: str) -> None:
        """Until it is answered; a job that is over, or was not paused, refuses with 409."""
        while True:
            for url in self.urls:
                answer = await self._ask("POST", f"{url}/v1/jobs/{job_id}/{deed}")
                if answer is not None:
                    if not answer.is_success and answer.status_code != 409:
                        self.complaints.append(f"{deed} {job_id}: {answer.status_code} {answer.text}")
                    return
            await asyncio.sleep(0.1)

    async def _ask(self, method: str, url: str, key: str | None = None, **body: Any) -> httpx.Response | None:
        """The answer; None when there is none, or the server says that it is its own fault."""
        headers = {"Idempotency-Key": key} if key else {}
        try:
            answer = await self.http.request(method, url, headers=headers, **body)
        except httpx.TransportError:
            return None
        return None if answer.is_server_error else answer
