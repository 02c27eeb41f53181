"""How the service is: alive, ready, which version, and its metrics. None of it needs a key."""

import asyncio
import time
from importlib.metadata import version

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse, Response

from api.deps import Behind, Services
from api.schemas import Health, Readiness, Version
from service import jobs
from service.cluster import ClusterUnavailable
from service.db import head_revision
from service.status import Status

PATIENCE = 5.0
"""Seconds that a readiness check waits for what is behind the service."""

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> Health:
    """The process answers; nothing behind it is asked."""
    return Health(status="ok")


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "Not ready."}})
async def readyz(behind: Behind) -> Response:
    """Whether the database, its schema and the cluster can be used."""
    checks = {"database": await _database(behind), "cluster": await _cluster(behind)}
    ready = all(found == "ok" for found in checks.values())
    body = Readiness(status="ready" if ready else "not_ready", checks=checks)
    return JSONResponse(body.model_dump(), 200 if ready else 503)


@router.get("/version")
async def get_version() -> Version:
    """The version that runs, and the schema that it works with."""
    return Version(version=version("fewstep"), schema_revision=head_revision())


@router.get("/metrics", response_class=Response, include_in_schema=False)
async def metrics(behind: Behind) -> Response:
    """Prometheus text."""
    async with behind.db.read() as session:
        counts = await jobs.count_by_status(session)
    for status in Status:
        behind.gauges.jobs.labels(status.value).set(counts.get(status, 0))
    last = behind.reconciler.last_tick_at
    behind.gauges.lag.set(time.time() - last if last is not None else 0)
    behind.gauges.tick.set(behind.reconciler.last_tick_seconds)
    return Response(generate_latest(behind.registry), media_type=CONTENT_TYPE_LATEST)


async def _database(behind: Services) -> str:
    try:
        async with asyncio.timeout(PATIENCE), behind.db.read() as session:
            await session.execute(text("SELECT 1"))
        found = await behind.db.revision()
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        return f"unreachable ({type(error).__name__})"
    return "ok" if found == head_revision() else f"at revision {found}, which is not {head_revision()}"


async def _cluster(behind: Services) -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            await behind.cluster.jobs()
    except (ClusterUnavailable, TimeoutError):
        return "unreachable"
    return "ok"
