"""Leases: who works on a row, and until when. Any number of control planes may claim, and none works on another's.

A lease is a random token in the row and an expiry on the database's clock. Its holder works outside transactions while
a heartbeat moves the expiry, and writes only where the token is still its own: who was slow enough to lose the lease
changes nothing. When a holder dies nobody needs to know of it; its leases expire, and the rows are due again.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, case, delete, exists, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from service import attempts
from service.db import Database, insert_once
from service.jobs import AT_ONCE
from service.platform_tables import Duty
from service.status import ACTIVE, Status
from service.tables import Attempt, Job

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
"""Between looks at a job on the cluster that says nothing decisive: how late a silent death is seen."""


@dataclass(frozen=True)
class Claim:
    """Jobs that one holder works on, as they were when it claimed them, at `now`."""

    token: str
    now: datetime
    jobs: Sequence[Job]
    attempts: dict[str, Attempt]
    """The newest attempt of each job, by the job's id."""
    expired: int
    """How many of the jobs another holder had let its lease run out on."""


class JobLeases:
    """The job leases of one process."""

    def __init__(self, db: Database, seconds: float) -> None:
        self._db = db
        self._seconds = seconds
        self._held: dict[str, set[str]] = {}

    async def claim(self, limit: int) -> Claim:
        """Lease up to `limit` jobs that are due and that nobody holds, the longest due first."""
        token = secrets.token_hex(16)
        async with self._db.write() as session:
            now = await self._db.now(session)
            expires = now + timedelta(seconds=self._seconds)
            due = select(Job).where(Job.look_at <= now, _free(now)).order_by(Job.look_at, Job.id).limit(limit)
            found = (await session.scalars(due.with_for_update(skip_locked=True))).all()
            ids = [job.id for job in found]
            if not ids:
                return Claim(token, now, [], {}, 0)
            # A call that comes while the job is held must be seen at release, so the one that is heeded now is erased.
            heeded = case((Job.look_at == AT_ONCE, expires), else_=Job.look_at)
            taken = update(Job).where(Job.id.in_(ids)).values(lease_token=token, lease_expires_at=expires)
            await session.execute(taken.values(look_at=heeded).execution_options(synchronize_session=False))
            newest = await attempts.newest(session, ids)
        self._held[token] = set(ids)
        return Claim(token, now, found, newest, sum(job.lease_token is not None for job in found))

    @contextlib.asynccontextmanager
    async def kept(self, claim: Claim) -> AsyncIterator[None]:
        """While the block runs, what is not released of the claim stays leased."""
        try:
            async with _heartbeat(lambda: self.extend(claim), self._seconds / 3):
                yield
        except Exception:
            self._held.pop(claim.token, None)  # left to expire
            raise

    async def extend(self, claim: Claim) -> None:
        """Move the expiry of what is still held."""
        async with self._db.write() as session:
            expires = await self._db.now(session) + timedelta(seconds=self._seconds)
            mine = Job.id.in_(self._held.get(claim.token, ())) & (Job.lease_token == claim.token)
            await session.execute(update(Job).where(mine).values(lease_expires_at=expires))

    async def release(self, claim: Claim, ids: Collection[str], *, again: bool = False) -> None:
        """Give jobs back. What is on the cluster is looked at again in a while, and so is anything with `again`;
        the rest when it is called for. A call that came while it was held counts."""
        if not ids:
            return
        async with self._db.write() as session:
            soon = await self._db.now(session) + timedelta(seconds=LOOK_SECONDS)
            look = case((Job.look_at == AT_ONCE, Job.look_at), (Job.status.in_(Status if again else ACTIVE), soon))
            mine = Job.id.in_(ids) & (Job.lease_token == claim.token)
            freed = update(Job).where(mine).values(lease_token=None, lease_expires_at=None, look_at=look)
            await session.execute(freed.execution_options(synchronize_session=False))
        held = self._held[claim.token]
        held.difference_update(ids)
        if not held:
            del self._held[claim.token]

    async def release_all(self) -> None:
        """Give back everything that this process holds, so that the next one need not wait for it to expire."""
        async with self._db.write() as session:
            values = {"lease_token": None, "lease_expires_at": None, "look_at": AT_ONCE}
            for token, ids in self._held.items():
                mine = Job.id.in_(ids) & (Job.lease_token == token)
                await session.execute(update(Job).where(mine).values(values))
        self._held = {}


async def forget_all(db: Database) -> None:
    """End every lease. For SQLite, which serves one process: at its start, whoever held them is dead."""
    free = {"lease_token": None, "lease_expires_at": None, "look_at": AT_ONCE}
    async with db.write() as session:
        await session.execute(update(Job).where(Job.lease_token.is_not(None)).values(free))
        await session.execute(delete(Duty))


async def anything_due(session: AsyncSession, now: datetime) -> bool:
    """Whether a job waits to be looked at, or for a place on the cluster."""
    due = exists().where(Job.look_at <= now) | exists().where(Job.status == Status.QUEUED)
    return bool((await session.execute(select(due))).scalar_one())


class DutyLease:
    """Something that one process does for all. Who comes again keeps it; who stays away for `seconds` loses it."""

    def __init__(self, db: Database, name: str, seconds: float) -> None:
        self._db = db
        self._name = name
        self._seconds = seconds
        self._token = secrets.token_hex(16)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[bool]:
        """Whether the duty is this process's; while the block runs it stays so."""
        if not await self._take():
            yield False
            return
        async with _heartbeat(self._take, self._seconds / 3):
            yield True

    async def release(self) -> None:
        """Let another process take over at once."""
        async with self._db.write() as session:
            await session.execute(delete(Duty).where(Duty.name == self._name, Duty.token == self._token))

    async def _take(self) -> bool:
        async with self._db.read() as session:
            now = await self._db.now(session)
            found = await session.get(Duty, self._name)
        mine = found is not None and found.token == self._token
        if found is not None and not mine and found.expires_at >= now:
            return False
        if found is not None and mine and found.expires_at - now > timedelta(seconds=self._seconds * 2 / 3):
            return True
        async with self._db.write() as session:
            now = await self._db.now(session)
            values = {"token": self._token, "expires_at": now + timedelta(seconds=self._seconds)}
            await insert_once(session, Duty, [{"name": self._name, **values, "expires_at": now}], unique=["name"])
            free = (Duty.token == self._token) | (Duty.expires_at < now)
            taken = update(Duty).where(Duty.name == self._name, free).values(values).returning(Duty.name)
            return (await session.execute(taken)).scalar_one_or_none() is not None


def _free(now: datetime) -> ColumnElement[bool]:
    return Job.lease_expires_at.is_(None) | (Job.lease_expires_at < now)


@contextlib.asynccontextmanager
async def _heartbeat(extend: Callable[[], Awaitable[object]], every: float) -> AsyncIterator[None]:
    over = asyncio.Event()

    async def beat() -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await over.wait()
                return
            try:
                await extend()
            except (SQLAlchemyError, OSError) as error:  # tried again; should the lease be lost, the token says so
                log.warning("leases.heartbeat_failed", error=type(error).__name__)

    heart = asyncio.create_task(beat())
    try:
        yield
    finally:
        over.set()
        await asyncio.wait({heart})
