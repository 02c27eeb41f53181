"""API keys: each good for one project, with a role; stored as hashes, shown once, over when they expire or are revoked.

A key is 256 random bits, so a plain SHA-256 keeps it safe: password hashes are slow to guard secrets that can be
guessed, and nobody guesses this one. A fast hash is also what lets every request look its key up by index.
"""

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from service import projects
from service.db import Database
from service.errors import Conflict, Forbidden, NotFound, Unauthorized
from service.ids import is_id, new_id
from service.projects import DEFAULT
from service.status import Role
from service.tables import ApiKey

PREFIX = "fsk_"
SHOWN = len(PREFIX) + 4
"""Characters of a key that stay readable, to tell keys apart."""
KNOWN_SECONDS = 1.0
"""How long a process goes by what it read of a key, instead of asking for it with every request."""
KNOWN_KEYS = 10_000
"""Of one process at most."""
USE_SECONDS = 60.0
"""How exactly a key's last use is known."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who asks: a key, the project that it acts in, and what it may do there."""

    key_id: str
    project_id: str
    role: Role


class Keyring:
    """Tells whose key a request brings. A key that is revoked is over within a second, everywhere."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._noted: dict[str, float] = {}
        self._known: dict[tuple[str, str | None], tuple[Caller, float]] = {}

    def forget(self) -> None:
        """Ask the database about every key anew."""
        self._known.clear()

    async def check(self, key: str, project: str | None = None) -> Caller:
        """Whose key it is, in its own project or, for an admin, in the one named. Unauthorized, Forbidden, NotFound."""
        digest = _hash(key)
        caller, until = self._known.get((digest, project), (None, 0.0))
        if caller is not None and time.monotonic() < until:
            return caller
        until = time.monotonic() + KNOWN_SECONDS
        async with self._db.read() as session:
            row = await session.scalar(select(ApiKey).where(ApiKey.sha256 == digest, ApiKey.revoked_at.is_(None)))
            if row is None or not hmac.compare_digest(row.sha256, digest) or await self._is_over(session, row):
                raise Unauthorized(
                    "The API key is wrong, revoked or expired; send a valid one as 'Authorization: Bearer <key>'."
                )
            acts_in = row.project_id if project is None else await _other_project(session, row, project)
        await self._note_use(row.id)
        if len(self._known) >= KNOWN_KEYS:
            self._known.clear()
        caller = Caller(row.id, acts_in, row.role)
        self._known[digest, project] = caller, until
        return caller

    async def _is_over(self, session: AsyncSession, row: ApiKey) -> bool:
        return row.expires_at is not None and row.expires_at <= await self._db.now(session)

    async def _note_use(self, key_id: str) -> None:
        """Write down that the key was used, once a minute and process at most; a reader is not failed over it."""
        at = time.monotonic()
        if at - self._noted.get(key_id, -USE_SECONDS) < USE_SECONDS:
            return
        self._noted[key_id] = at
        try:
            async with self._db.write() as session:
                now = await self._db.now(session)
                old = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now - timedelta(seconds=USE_SECONDS))
                used = update(ApiKey).where(ApiKey.id == key_id, old).values(last_used_at=now)
                await session.execute(used)
        except (SQLAlchemyError, OSError) as error:
            log.warning("auth.use_not_noted", key_id=key_id, error=type(error).__name__)


async def _other_project(session: AsyncSession, row: ApiKey, project: str) -> str:
    """The project that a request names, if the key may act in it."""
    found = await projects.find(session, project)
    if row.role is not Role.ADMIN and (found is None or found.id != row.project_id):
        raise Forbidden("Only an admin's key acts in another project; leave Fewstep-Project out, or name your own.")
    if found is None:
        raise NotFound("Fewstep-Project names no project; GET /v1/projects lists them.")
    return found.id


async def create(
    session: AsyncSession, project_id: str, name: str, role: Role, expires_in: timedelta | None, now: datetime
) -> tuple[ApiKey, str]:
    """A new key's row, and the key itself, which is kept nowhere."""
    key = PREFIX + secrets.token_urlsafe(32)
    expires_at = None if expires_in is None else now + expires_in
    row = _row(key, project_id=project_id, name=name, role=role, expires_at=expires_at, created_at=now)
    session.add(row)
    await session.flush()
    return row, key


async def page(
    session: AsyncSession, *, project_id: str | None = None, limit: int, after: str | None = None
) -> Sequence[ApiKey]:
    """Keys of one project or of all, the newest first, starting below the id `after`; up to `limit` + 1."""
    query = select(ApiKey).order_by(ApiKey.id.desc()).limit(limit + 1)
    if project_id is not None:
        query = query.where(ApiKey.project_id == project_id)
    if after is not None:
        query = query.where(ApiKey.id < after)
    return (await session.scalars(query)).all()


async def revoke(session: AsyncSession, key_id: str, now: datetime) -> ApiKey:
    """End a key; one that is over stays as it is. NotFound. Conflict for the last admin's key that never expires.

    Such a key always remains, so that no clock and no mistake locks everybody out.
    """
    if not is_id(key_id, "key") or (row := await session.get(ApiKey, key_id)) is None:
        raise NotFound("There is no such key; GET /v1/keys lists them.")
    lasting = select(ApiKey.id).where(
        ApiKey.role == Role.ADMIN, ApiKey.expires_at.is_(None), ApiKey.revoked_at.is_(None)
    )
    # locked, so that of two admins who revoke each other's keys at the same moment one is refused
    left = (await session.scalars(lasting.order_by(ApiKey.id).with_for_update())).all()
    if list(left) == [key_id]:
        raise Conflict("This is the last admin key that never expires; make another one before revoking it.")
    ended = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=now)
    await session.execute(ended)
    await session.refresh(row)
    return row


async def ensure_first_key(session: AsyncSession, file: Path, now: datetime) -> bool:
    """Make the first key and leave it in `file`, readable by its owner alone; whether there was none yet.

    A key that lies there already is taken instead, so the file may also be provided by the operator.
    """
    if (await session.execute(select(func.count()).select_from(ApiKey))).scalar_one():
        return False
    key = file.read_text().strip() if file.exists() else ""
    if not key:
        key = PREFIX + secrets.token_urlsafe(32)
        _write_private(file, key)
    session.add(_row(key, project_id=DEFAULT, name="first", role=Role.ADMIN, expires_at=None, created_at=now))
    return True


def _row(
    key: str, *, project_id: str, name: str, role: Role, expires_at: datetime | None, created_at: datetime
) -> ApiKey:
    return ApiKey(
        id=new_id("key"),
        project_id=project_id,
        name=name,
        role=role,
        prefix=key[:SHOWN] if key.startswith(PREFIX) else "",
        sha256=_hash(key),
        expires_at=expires_at,
        created_at=created_at,
    )


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


def _write_private(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
        target.write(text + "\n")
    file.chmod(0o600)
