"""How the service is: alive, ready, which version, and its metrics. None of it needs a key."""

import asyncio
from collections.abc import Awaitable
from importlib.metadata import version

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from api.deps import Behind, Services, anyone
from api.schemas import Health, Readiness, Version
from service.cluster import ClusterUnavailable
from service.db import head_revision
from service.errors import FewstepError

PATIENCE = 5.0
"""Seconds that a readiness check waits for what is behind the service."""

router = APIRouter(tags=["health"], dependencies=[Depends(anyone)])


@router.get("/healthz")
async def healthz() -> Health:
    """The process answers; nothing behind it is asked."""
    return Health(status="ok")


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "Not ready."}})
async def readyz(behind: Behind) -> Response:
    """Whether the database, its schema, the cluster and the artifact store can be used."""
    asked = {"database": _database(behind), "cluster": _cluster(behind), "store": _store(behind)}
    checks = dict(zip(asked, await asyncio.gather(*map(_in_time, asked.values())), strict=True))
    ready = all(found == "ok" for found in checks.values())
    body = Readiness(status="ready" if ready else "not_ready", checks=checks)
    return JSONResponse(body.model_dump(), 200 if ready else 503)


@router.get("/version")
async def get_version() -> Version:
    """The version that runs, and the schema that it works with."""
    return Version(version=version("fewstep"), schema_revision=head_revision())


@router.get("/metrics", response_class=Response, include_in_schema=False)
async def metrics(behind: Behind) -> Response:
    """Prometheus text. While the database is away, what is read from it stays as it was."""
    await behind.meters.refresh(behind.db)
    return Response(generate_latest(behind.meters.registry), media_type=CONTENT_TYPE_LATEST)


async def _in_time(check: Awaitable[str]) -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            return await check
    except TimeoutError:
        return f"no answer within {PATIENCE:g} s"


async def _database(behind: Services) -> str:
    try:
        found = await behind.db.revision()
    except (SQLAlchemyError, OSError) as error:
        return f"unreachable ({type(error).__name__})"
    return "ok" if found == head_revision() else f"at revision {found}, which is not {head_revision()}"


async def _cluster(behind: Services) -> str:
    try:
        await behind.cluster.jobs()
    except ClusterUnavailable:
        return "unreachable"
    return "ok"


async def _store(behind: Services) -> str:
    try:
        await run_in_threadpool(behind.store.check)
    except FewstepError as error:
        return error.detail
    return "ok"
