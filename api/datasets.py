"""Datasets: register a folder of the store or the hub, list, read."""

from datetime import datetime

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api import problems
from api.deps import After, Behind, Creating, Limit, Made, Member, Viewer, page
from api.schemas import DatasetCreate, DatasetView, Page
from service import datasets

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post("", status_code=201, response_model=DatasetView, responses=problems.declared(400, 409))
async def register_dataset(body: DatasetCreate, caller: Member, behind: Behind, create: Creating) -> Response:
    """Look at a folder and register it: images, WebDataset tars, a Hugging Face dataset, or prompts.

    A dataset of the hub is registered at its present commit. Its format is found by looking.
    Names and headers are read; nothing is decoded or run.
    """
    async with behind.db.read() as session:
        await datasets.check_source(session, caller.project_id, body.source)
    source, facts = await run_in_threadpool(datasets.look, behind.store, behind.hub, body.source)

    async def make(session: AsyncSession, now: datetime) -> Made:
        dataset = await datasets.register(session, caller.project_id, body.name, source, facts, now)
        return Made(f"/v1/datasets/{dataset.id}", DatasetView.model_validate(dataset))

    return await create(201, make)


@router.get("", responses=problems.declared())
async def list_datasets(caller: Viewer, behind: Behind, limit: Limit = 20, after: After = None) -> Page[DatasetView]:
    """Datasets, the newest first."""
    async with behind.db.read() as session:
        rows = await datasets.page(session, caller.project_id, limit=limit, after=after)
    return page(rows, limit, DatasetView.model_validate, lambda row: row.id)


@router.get("/{dataset}", responses=problems.declared(404))
async def get_dataset(dataset: str, caller: Viewer, behind: Behind) -> DatasetView:
    """One dataset, by id or name."""
    async with behind.db.read() as session:
        return DatasetView.model_validate(await datasets.get(session, caller.project_id, dataset))
