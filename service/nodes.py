"""The cluster's machines as last seen: what admission may promise."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from service.cluster import NodeSeen
from service.db import insert_once
from service.platform_tables import Node


async def store(session: AsyncSession, seen: Sequence[NodeSeen], now: datetime) -> None:
    """Make the rows those of `seen`: what is not alive any more is forgotten."""
    await session.execute(delete(Node).where(Node.id.not_in([node.id for node in seen])))
    rows = [{"id": node.id, "cpus": node.cpus, "gpus": node.gpus, "seen_at": now} for node in seen]
    await insert_once(session, Node, rows, unique=["id"], update=["cpus", "gpus", "seen_at"])


async def known(session: AsyncSession) -> Sequence[Node]:
    """The machines as rows, by id."""
    return (await session.scalars(select(Node).order_by(Node.id))).all()
