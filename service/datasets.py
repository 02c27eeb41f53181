"""Datasets: what a job may learn from, looked at when it is registered; nothing of it is decoded or run."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from service import jobs
from service.dataset_folder import Facts, StoredData, refuse
from service.dataset_inspection import inspect
from service.errors import Conflict, InvalidRequest, NotFound, Pointer, unknown
from service.hub import Hub
from service.hub_data import HubData
from service.ids import is_id, new_id
from service.sources import hub_id
from service.storage import Storage
from service.tables import Dataset


def look(store: Storage, hub: Hub, source: str) -> tuple[str, Facts]:
    """Read a dataset before it is registered: where it is from now on, and what it is.

    A repository of the hub is pinned to the commit that it is at. DataInvalid, StoreUnavailable, HubUnavailable.
    """
    asked = hub_id(source)
    if asked is not None and asked.kind == "dataset":
        found = HubData(hub, asked)
        return str(found.pinned), inspect(found)
    if "://" in source:
        refuse(
            "This is a path outside the store: give one relative to its root, such as 'data/mine', or a dataset of the "
            "hub, such as hf://datasets/org/name@revision."
        )
    return source, inspect(StoredData(store, source))


async def check_source(session: AsyncSession, project_id: str, source: str) -> None:
    """DataInvalid for what jobs of other projects left in the store: to this project, it is not there."""
    if await jobs.left_by_others(session, project_id, source):
        refuse(f"'{source}' is not a folder in the store; put the dataset there and give its path.")


async def register(
    session: AsyncSession, project_id: str, name: str, source: str, facts: Facts, now: datetime
) -> Dataset:
    """Store a dataset that was inspected. Conflict when the name is taken."""
    if await _get(session, project_id, name) is not None:
        raise Conflict(f"There is a dataset called '{name}' already; choose another name.")
    dataset = Dataset(
        id=new_id("dat"), project_id=project_id, name=name, source=source, created_at=now, **asdict(facts)
    )
    session.add(dataset)
    await session.flush()
    return dataset


async def find(session: AsyncSession, project_id: str, dataset: str, pointer: str = "/data") -> Dataset:
    """By name or id. InvalidRequest, naming the near ones, when a request names a dataset that is not there."""
    found = await _get(session, project_id, dataset)
    if found is None:
        query = select(Dataset.name).where(Dataset.project_id == project_id).order_by(Dataset.name).limit(100)
        detail = unknown("dataset", dataset, (await session.scalars(query)).all())
        raise InvalidRequest(detail, [Pointer(pointer, detail)])
    return found


async def get(session: AsyncSession, project_id: str, dataset: str) -> Dataset:
    """By name or id. NotFound."""
    try:
        return await find(session, project_id, dataset)
    except InvalidRequest as error:
        raise NotFound(error.detail) from error


async def page(session: AsyncSession, project_id: str, *, limit: int, after: str | None = None) -> Sequence[Dataset]:
    """The newest first, starting below the id `after`; up to `limit` + 1."""
    query = select(Dataset).where(Dataset.project_id == project_id).order_by(Dataset.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Dataset.id < after)
    return (await session.scalars(query)).all()


async def _get(session: AsyncSession, project_id: str, dataset: str) -> Dataset | None:
    named = (Dataset.id if is_id(dataset, "dat") else Dataset.name) == dataset
    if "\0" in dataset:
        return None
    found: Dataset | None = await session.scalar(select(Dataset).where(Dataset.project_id == project_id, named))
    return found
