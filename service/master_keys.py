"""Secrets that every process of the control plane shares, and that tokens and signing keys are derived from."""

import hashlib
import hmac
import secrets

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service.db import insert_once
from service.platform_tables import Secret


async def master_key(session: AsyncSession, name: str) -> bytes:
    """The 32 bytes stored under `name`; made at their first use, in a transaction that writes."""
    row = {"name": name, "value": secrets.token_hex(32)}
    await insert_once(session, Secret, [row], unique=["name"])
    value = (await session.execute(select(Secret.value).where(Secret.name == name))).scalar_one()
    return bytes.fromhex(value)


def derive(key: bytes, text: str) -> bytes:
    """32 bytes that only holders of the key can compute, the same for the same text."""
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
