"""The sender: takes what is due from the outbox, posts it to its receiver, and writes down how that went.

Sending happens outside transactions, each delivery in a task of its own with a deadline, and only a few to one webhook
at a time: a receiver that never answers keeps its own places busy and nobody else's.
"""

import asyncio
import contextlib
from datetime import datetime
from importlib.metadata import version

import httpx
import structlog

from service import addresses, outbox, webhooks
from service.db import Database
from service.meters import Meters
from service.outbox import Claim
from service.settings import Settings
from service.tables import DeliveryStatus

TIMEOUT = 10.0
"""Seconds for one try: finding the host, connecting, sending, and the answer's status."""

UNDER_WAY = 256
"""Deliveries that one process sends at a time."""

INTERVAL = 0.5
"""Seconds between looks into the outbox while nothing is under way."""

_OUTCOMES = {DeliveryStatus.DELIVERED: "delivered", DeliveryStatus.PENDING: "failed", DeliveryStatus.DEAD: "dead"}

log = structlog.get_logger(__name__)


class Deliverer:
    """One sender; every control-plane process may run one."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        meters: Meters,
        *,
        resolve: addresses.Resolve = addresses.resolve,
        timeout: float = TIMEOUT,
    ) -> None:
        self._db = db
        self._meters = meters
        self._allow_private = settings.webhook_private_addresses
        self._resolve = resolve
        self._timeout = timeout
        agent = {"User-Agent": f"Fewstep/{version('fewstep')}", "Content-Type": "application/json"}
        # No connection is kept: it was checked for one host name, and another name may lead to the same address.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        seconds = httpx.Timeout(timeout, connect=timeout / 2)
        self._client = httpx.AsyncClient(headers=agent, limits=limits, timeout=seconds, trust_env=False)
        self._key: bytes | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Tick until cancelled. No error ends the loop; it is logged, and the next tick tries again."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self.tick()
                except Exception:
                    log.exception("deliver.tick_failed")
                with contextlib.suppress(TimeoutError):  # asyncio.wait_for would lose a cancellation beside a wake
                    async with asyncio.timeout(INTERVAL):
                        await self._wake.wait()
        finally:
            await self.close()

    async def tick(self) -> int:
        """Claim what is due and start sending it; how many that were."""
        claims = await self._claim(UNDER_WAY - len(self._sending))
        for claim in claims:
            task = asyncio.create_task(self._deliver(claim))
            self._sending.add(task)
            task.add_done_callback(self._sent)
        return len(claims)

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        while self._sending:
            await asyncio.wait(self._sending)

    async def close(self) -> None:
        """Break off what is under way; it is sent again when its lease has run out."""
        for task in self._sending:
            task.cancel()
        await self.settle()
        await self._client.aclose()

    async def _claim(self, room: int) -> list[Claim]:
        async with self._db.read() as session:
            waiting = await outbox.due(session, await self._db.now(session)) if room > 0 else []
        if not waiting:
            return []
        claims: list[Claim] = []
        async with self._db.write() as session:
            now = await self._db.now(session)
            self._key = self._key or await webhooks.signing_key(session)
            for webhook_id, url, free in waiting:
                if limit := min(free, room - len(claims)):
                    claims += await outbox.claim(session, webhook_id, url, limit, now)
        return claims

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._wake.set()

    async def _deliver(self, claim: Claim) -> None:
        """Send one delivery and mark it. Whatever fails here but the mark itself is the receiver's failed try."""
        delivery = claim.delivery
        try:
            async with self._db.read() as session:
                now = await self._db.now(session)
            status, error = await self._try(claim, now)
            async with self._db.write() as session:
                now = await self._db.now(session)
                if error is None:
                    assert status is not None, "an answer without an error has a status"
                    outcome = await outbox.mark_delivered(session, claim, status, now)
                else:
                    outcome = await outbox.mark_failed(session, claim, status, error, now)
            if outcome is not None:
                self._meters.webhook_attempts.labels(_OUTCOMES[outcome]).inc()
            told = {"delivery": delivery.id, "webhook": delivery.webhook_id, "http_status": status, "error": error}
            log.info("deliver.tried", outcome=outcome.value if outcome else "lease_lost", **told)
        except Exception:
            log.exception("deliver.failed", delivery=delivery.id)

    async def _try(self, claim: Claim, now: datetime) -> tuple[int | None, str | None]:
        """Post once. The answer's status, and what was wrong; no error means that the receiver took it."""
        status: int | None = None
        try:
            async with asyncio.timeout(self._timeout):
                url = addresses.parse(claim.url)
                found = await addresses.checked(url, self._allow_private, self._resolve)
                status = await self._post(url, found, claim, now)
        except (TimeoutError, httpx.TimeoutException):
            return None, f"No answer within {self._timeout:g} seconds."
        except addresses.Refused as error:
            return None, str(error)
        except httpx.HTTPError as error:
            return None, f"The connection failed: {str(error) or type(error).__name__}."
        if 200 <= status < 300:
            return status, None
        redirect = " Redirects are not followed: register the URL that it leads to." if 300 <= status < 400 else ""
        return status, f"The receiver answered {status}; any 2xx takes a delivery.{redirect}"

    async def _post(self, url: httpx.URL, found: list[str], claim: Claim, now: datetime) -> int:
        """Connect to the first of the checked addresses that can be, under the name that the URL has."""
        assert self._key is not None, "nothing is claimed before the key is read"
        content = webhooks.body(claim.delivery)
        headers = {**webhooks.headers(self._key, claim.delivery, now), "Host": url.netloc.decode("ascii")}
        name = {"sni_hostname": url.raw_host.decode("ascii")}
        *others, last = found
        for address in others:
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._status(url.copy_with(host=address), content, headers, name)
        return await self._status(url.copy_with(host=last), content, headers, name)

    async def _status(self, url: httpx.URL, content: bytes, headers: dict[str, str], name: dict[str, str]) -> int:
        async with self._client.stream("POST", url, content=content, headers=headers, extensions=name) as response:
            return response.status_code  # the answer's body, however long, is nobody's business
