"""Teachers: diffusers folders that were checked, without running anything of theirs, before any job may name them."""

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from sqlalchemy import ColumnElement, bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from service import jobs
from service.db import insert_once
from service.errors import Conflict, InvalidRequest, NotFound, Pointer, TeacherInvalid, unknown
from service.folder import refuse
from service.hub import Hub
from service.ids import is_id, new_id
from service.inspection import Facts, inspect
from service.sources import hub_id
from service.storage import Storage
from service.stored_folder import StoredFolder
from service.tables import Teacher

BUILTIN = "builtin:digits"
SHARED = ""
"""The project of teachers that every project may use."""


def inspect_builtin() -> Facts:
    """The digits teacher that ships with the workers, found without importing them."""
    spec = importlib.util.find_spec("workers")
    if spec is None or not spec.submodule_search_locations:
        raise TeacherInvalid(f"{BUILTIN} ships in the package `workers`, which is not installed.")
    assets = Path(next(iter(spec.submodule_search_locations))) / "assets" / "digits"
    return inspect(StoredFolder(Storage(f"file://{assets}"), "teacher"))


def look(store: Storage, hub: Hub, source: str) -> tuple[str, Facts]:
    """Read a teacher before it is registered: where it is from now on, and what it is.

    A repository of the hub is pinned to the commit that it is at. TeacherInvalid, StoreUnavailable, HubUnavailable.
    """
    asked = hub_id(source)
    if asked is not None and asked.kind == "model":
        found = hub.open(asked)
        return str(found.pinned), inspect(found)
    if "://" in source:
        refuse(
            "This is a path outside the store: give one relative to its root, such as 'teachers/mine', or a model of "
            "the hub, such as hf://org/name@revision."
        )
    return source, inspect(StoredFolder(store, source))


async def check_source(session: AsyncSession, project_id: str, source: str) -> None:
    """TeacherInvalid for what jobs of other projects left in the store: to this project, it is not there."""
    if await jobs.left_by_others(session, project_id, source):
        refuse(f"'{source}' is not a folder in the store; put the teacher there and give its path.")


async def register(
    session: AsyncSession, project_id: str, name: str, source: str, facts: Facts, now: datetime
) -> Teacher:
    """Store a teacher that was inspected. Conflict when the name is taken."""
    if await session.scalar(select(Teacher.id).where(_visible(project_id), Teacher.name == name)) is not None:
        raise Conflict(f"There is a teacher called '{name}' already; choose another name.")
    teacher = Teacher(
        id=new_id("tea"), project_id=project_id, name=name, source=source, created_at=now, **asdict(facts)
    )
    session.add(teacher)
    await session.flush()
    return teacher


async def ensure_builtin(session: AsyncSession, facts: Facts, now: datetime) -> None:
    """Register the digits teacher for every project; at a later start, its figures follow the installed version."""
    row = {
        "id": new_id("tea"),
        "project_id": SHARED,
        "name": "digits",
        "source": BUILTIN,
        "created_at": now,
        **asdict(facts),
    }
    await insert_once(session, Teacher, [row], ["project_id", "name"], update=list(asdict(facts)))


_MINE = or_(Teacher.project_id == bindparam("project_id"), Teacher.project_id == SHARED)
_BY_ID = select(Teacher).where(_MINE, Teacher.id == bindparam("teacher"))
_BY_NAME = select(Teacher).where(_MINE, Teacher.name == bindparam("teacher"))


async def find(session: AsyncSession, project_id: str, teacher: str, pointer: str = "/teacher") -> Teacher:
    """By name or id. InvalidRequest, naming the near ones, when a request names a teacher that is not there."""
    query = _BY_ID if is_id(teacher, "tea") else _BY_NAME
    asked = {"project_id": project_id, "teacher": teacher}
    found = await session.scalar(query, asked) if "\0" not in teacher else None
    if found is None:
        names = (
            await session.scalars(select(Teacher.name).where(_visible(project_id)).order_by(Teacher.name).limit(100))
        ).all()
        detail = unknown("teacher", teacher, names)
        raise InvalidRequest(detail, [Pointer(pointer, detail)])
    return found


async def get(session: AsyncSession, project_id: str, teacher: str) -> Teacher:
    """By name or id. NotFound."""
    try:
        return await find(session, project_id, teacher)
    except InvalidRequest as error:
        raise NotFound(error.detail) from error


async def page(session: AsyncSession, project_id: str, *, limit: int, after: str | None = None) -> Sequence[Teacher]:
    """The newest first, starting below the id `after`; up to `limit` + 1."""
    query = select(Teacher).where(_visible(project_id)).order_by(Teacher.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Teacher.id < after)
    return (await session.scalars(query)).all()


def _visible(project_id: str) -> ColumnElement[bool]:
    """The project's own teachers, and those of everybody."""
    return Teacher.project_id.in_((project_id, SHARED))
