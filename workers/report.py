"""The job's side of the reports: numbered observations out, the user's wish back.

Training never waits for the network: observations are queued, a thread posts them and repeats what was not acknowledged
for as long as it takes. The control plane ignores numbers that it has, so a repeat is harmless.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import httpx

from service.observations import AttemptOrder, Observation, ReportAnswer
from service.status import Wish

BATCH_OBSERVATIONS = 500
BATCH_BYTES = 400_000
"""Well below the control plane's limits on one report."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between tries while the control plane is away: doubled from the first to the longest."""


class Fenced(Exception):
    """The control plane no longer wants this attempt: stop without a word."""


class Refused(Exception):
    """The control plane will never accept a report of this job."""


class Attempt:
    """One attempt's resource at the control plane; its token is good for nothing else."""

    def __init__(self, env: Mapping[str, str] = os.environ, transport: httpx.BaseTransport | None = None) -> None:
        self._url = f"{env['FEWSTEP_URL'].rstrip('/')}/v1/attempts/{env['FEWSTEP_ATTEMPT_ID']}"
        self._http = httpx.Client(
            headers={
                "Authorization": f"Bearer {env['FEWSTEP_ATTEMPT_TOKEN']}",
                "Content-Type": "application/json",
                **({"traceparent": env["TRACEPARENT"]} if "TRACEPARENT" in env else {}),
            },
            timeout=10,
            trust_env=False,
            transport=transport,
        )

    def order(self) -> AttemptOrder:
        """What to do. Waits while the control plane is away; raises Fenced and Refused."""
        return AttemptOrder.model_validate_json(self._persist("GET", "", b"").content)

    def report(self, body: bytes) -> ReportAnswer | None:
        """Post one report; None when it has to be tried again. Raises Fenced and Refused."""
        answer = self._ask("POST", "/reports", body)
        return None if answer is None else ReportAnswer.model_validate_json(answer.content)

    def _persist(self, method: str, path: str, body: bytes) -> httpx.Response:
        pause = FIRST_PAUSE
        while (answer := self._ask(method, path, body)) is None:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return answer

    def _ask(self, method: str, path: str, body: bytes) -> httpx.Response | None:
        try:
            answer = self._http.request(method, self._url + path, content=body)
        except httpx.TransportError:
            return None
        if answer.is_success:
            return answer
        if answer.status_code in (401, 403, 404, 409, 410):
            raise Fenced(f"{answer.status_code}: {answer.text[:500]}")
        if answer.is_client_error and answer.status_code not in (408, 429):
            raise Refused(f"{answer.status_code}: {answer.text[:500]}")
        return None


class Reporter:
    """The one writer of an attempt's observations, numbered on from what is stored already."""

    def __init__(self, attempt: Attempt, order: AttemptOrder, interval: float = 0.5) -> None:
        """`interval`: seconds between reports; an empty one is a heartbeat and brings the wish."""
        self._attempt = attempt
        self._head = b'{"writer":%d,"observations":[' % order.writer
        self._interval = interval
        self._last = self._stored = order.acknowledged
        self._wish = order.wish
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._changed = threading.Condition()
        self._urgent = False
        self._over: Fenced | Refused | None = None
        threading.Thread(target=self._run, name="reporter", daemon=True).start()

    def add(self, kind: type[Observation], **fields: Any) -> None:
        """Queue one observation; never blocks and never raises for what the network does."""
        with self._changed:
            self._last += 1
            if self._over is None:
                observation = kind(seq=self._last, at=time.time(), **fields)
                self._waiting.append((self._last, observation.model_dump_json().encode()))

    def wish(self) -> Wish:
        """What the user wanted at the last answer. Raises Fenced and Refused."""
        if self._over is not None:
            raise self._over
        return self._wish

    def flush(self, timeout: float | None = None) -> None:
        """Return when everything queued so far is stored. Raises Fenced, Refused, or TimeoutError after `timeout` s."""
        with self._changed:
            last = self._last
            self._urgent = True
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._over is not None or self._stored >= last, timeout):
                raise TimeoutError(f"reports not acknowledged within {timeout} s")
            if self._over is not None and self._stored < last:
                raise self._over

    def _run(self) -> None:
        pause = 0.0
        while self._over is None:
            with self._changed:
                if pause:
                    self._changed.wait(pause)
                elif not self._full():
                    self._changed.wait_for(lambda: self._urgent, self._interval)
                self._urgent = False
                body = self._body()
            try:
                answer = self._attempt.report(body)
            except (Fenced, Refused) as over:
                with self._changed:
                    self._over = over
                    self._waiting.clear()
                    self._changed.notify_all()
                return
            if answer is None:
                pause = min(2 * pause or FIRST_PAUSE, LONGEST_PAUSE)
                continue
            pause = 0.0
            with self._changed:
                self._wish = answer.wish
                self._stored = answer.acknowledged
                while self._waiting and self._waiting[0][0] <= self._stored:
                    self._waiting.popleft()
                self._changed.notify_all()

    def _full(self) -> bool:
        return len(self._waiting) > BATCH_OBSERVATIONS or self._urgent

    def _body(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        for _, part in self._waiting:
            size += len(part) + 1
            if parts and (len(parts) == BATCH_OBSERVATIONS or size > BATCH_BYTES):
                self._urgent = True  # the rest follows at once
                break
            parts.append(part)
        return self._head + b",".join(parts) + b"]}"
