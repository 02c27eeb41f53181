"""The control plane as an ASGI application: `uvicorn --factory api.app:create_app`, with settings from FEWSTEP_*."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from functools import cache
from importlib.metadata import version
from typing import Any

import httpx
import structlog
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from api import (
    attempts,
    audit,
    datasets,
    endpoints,
    health,
    images,
    jobs,
    keys,
    methods,
    observations,
    pages,
    problems,
    projects,
    stream,
    students,
    teachers,
    webhooks,
)
from api.deps import Services, role_of
from api.middleware import BodyLimitMiddleware, RequestMiddleware, trace_requests
from api.schemas import Problem
from service import attempts as attempt_rows
from service import auth, tracing
from service import projects as project_rows
from service import teachers as teacher_rows
from service.cluster import Cluster, RayCluster
from service.db import Database
from service.deliver import Deliverer
from service.hub import Hub
from service.logs import configure_logging
from service.meters import Meters
from service.reconcile import Reconciler
from service.settings import Settings
from service.storage import Storage

REPORT_BODY_BYTES = 32_000_000
"""Reports of running jobs may be longer than users' requests: up to 2,000 observations."""

GATEWAY_SECONDS = 300.0

RESOURCES = (
    jobs,
    observations,
    attempts,
    methods,
    teachers,
    datasets,
    students,
    endpoints,
    images,
    projects,
    keys,
    audit,
    webhooks,
    health,
)
"""Each has a `router`; the OpenAPI document is in this order."""

log = structlog.get_logger(__name__)


def create_app(settings: Settings | None = None, cluster: Cluster | None = None) -> FastAPI:
    """Build the application. Nothing is opened before it starts; tests hand in their settings and cluster."""
    settings = settings or Settings()
    traced = tracing.set_up()
    configure_logging([tracing.log_ids] if traced else [])
    meters = Meters()
    app = FastAPI(
        title="Fewstep",
        version=version("fewstep"),
        description="Distil pre-trained diffusion models into students of one to four steps, and host them.",
        lifespan=_lifespan,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    db = Database(settings.resolved_database_url())
    cluster = cluster or RayCluster(settings)
    app.state.services = Services(
        settings=settings,
        db=db,
        store=Storage(settings.resolved_store_url()),
        hub=Hub(settings.hub_endpoint, settings.hub_token),
        cluster=cluster,
        keyring=auth.Keyring(db),
        watch=stream.Watch(db),
        reconciler=Reconciler(db, cluster, settings, meters),
        meters=meters,
    )
    key = settings.gateway_key.get_secret_value()
    app.state.gateway = httpx.AsyncClient(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        base_url=settings.resolved_gateway_url(),
        timeout=httpx.Timeout(GATEWAY_SECONDS, connect=3),
        trust_env=False,
    )
    for part in RESOURCES:
        app.include_router(part.router)
    pages.mount(app)
    problems.install(app)
    app.add_middleware(BodyLimitMiddleware, limit=settings.max_body_bytes, report_limit=REPORT_BODY_BYTES)
    app.add_middleware(RequestMiddleware, meters=meters)
    if traced:
        trace_requests(app)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


@cache
def _settle_heap() -> None:
    """Once per process: what is loaded by now stays, so the garbage collector need not stop requests to look at it."""
    gc.collect()
    gc.freeze()


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    behind: Services = app.state.services
    await behind.db.open()
    facts = await run_in_threadpool(teacher_rows.inspect_builtin)
    async with behind.db.write() as session:
        now = await behind.db.now(session)
        await project_rows.ensure_default(session, now)
        await teacher_rows.ensure_builtin(session, facts, now)
        behind.attempt_key = await attempt_rows.signing_key(session)
        if await auth.ensure_first_key(session, behind.settings.api_key_file(), now):
            log.info("auth.first_key_written", file=str(behind.settings.api_key_file()))
    loops = [asyncio.create_task(behind.meters.watch_loop())]
    if behind.settings.reconcile_in_process:
        loops.append(asyncio.create_task(behind.reconciler.run()))
        loops.append(asyncio.create_task(Deliverer(behind.db, behind.settings, behind.meters).run()))
    _settle_heap()
    try:
        yield
    finally:
        for loop in loops:
            loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loop
        await app.state.gateway.aclose()
        await behind.cluster.close()
        await behind.db.close()


def _operation_id(route: APIRoute) -> str:
    return route.name


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the shape of every error in it, and the role that each operation asks for."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        routes = (route for part in RESOURCES for route in part.router.routes if isinstance(route, APIRoute))
        roles = {route.name: role_of(route) for route in routes}
        for operation in (one for path in document["paths"].values() for one in path.values()):
            operation["x-role"] = roles.get(operation["operationId"])
        _require_tags(document)
        app.openapi_schema = document
    return app.openapi_schema


def _require_tags(document: dict[str, Any]) -> None:
    """Say that the field is required by which one variant of several is chosen; the code has it as a default."""
    variants = document["components"]["schemas"]
    pending: list[Any] = [document]
    while pending:
        node = pending.pop()
        if isinstance(node, dict) and "discriminator" in node:
            tag = node["discriminator"]["propertyName"]
            for reference in node["discriminator"]["mapping"].values():
                variant = variants[reference.rsplit("/", 1)[1]]
                variant["required"] = sorted({tag, *variant.get("required", [])})
        pending += node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
