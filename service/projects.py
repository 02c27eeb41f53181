"""Projects: whose everything is, and how much of the cluster each may use."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from service.db import insert_once
from service.tables import Project

DEFAULT = "prj_00000000000000000000000000"
"""The project that is always there; its name is 'default'."""


async def ensure_default(session: AsyncSession, now: datetime) -> None:
    """Make the default project, if this is the database's first use."""
    row = {"id": DEFAULT, "name": "default", "weight": 1.0, "max_priority": 10, "created_at": now}
    await insert_once(session, Project, [row], unique=["id"])
