"""API keys: stored as hashes, shown once."""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.errors import Unauthorized
from service.ids import new_id
from service.projects import DEFAULT
from service.status import Role
from service.tables import ApiKey

PREFIX = "fsk_"


@dataclass(frozen=True)
class Caller:
    """Who asks: a key, the project that it is good for, and what it may do there."""

    key_id: str
    project_id: str
    role: Role


async def check(session: AsyncSession, key: str) -> Caller:
    """Whose key it is. Unauthorized unless it is valid."""
    digest = _hash(key)
    row = await session.scalar(select(ApiKey).where(ApiKey.sha256 == digest, ApiKey.revoked_at.is_(None)))
    if row is None or not hmac.compare_digest(row.sha256, digest):
        raise Unauthorized("The API key is wrong; send a valid one as 'Authorization: Bearer <key>'.")
    return Caller(row.id, row.project_id, row.role)


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
    first = {"project_id": DEFAULT, "name": "first", "role": Role.ADMIN, "prefix": key[: len(PREFIX) + 4]}
    session.add(ApiKey(id=new_id("key"), sha256=_hash(key), created_at=now, **first))
    return True


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


def _write_private(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
        target.write(text + "\n")
    file.chmod(0o600)
