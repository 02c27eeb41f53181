"""The reconciler's half for endpoints: Ray Serve is told the whole wanted set, and its answer becomes their status."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import delete, select, update

from service.cluster import Cluster, ClusterUnavailable, ServeApp
from service.db import Database
from service.leases import DutyLease
from service.serving import Served, serve_config
from service.settings import Settings
from service.sources import url_of
from service.storage import Storage
from service.tables import Endpoint, EndpointStatus, Job, Student, Teacher

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 10.0
"""How long Serve has to show an application that it was told of, before it is told again."""

QUIET_SECONDS = 5.0
"""Between looks at Serve while every endpoint is as wanted."""


class Deployments:
    """Level-triggered like the reconciler: what Serve lost, with its head for example, it is told again.

    One process at a time tells it, since a PUT means everything and an older one would undo a newer.
    """

    def __init__(self, db: Database, cluster: Cluster, settings: Settings) -> None:
        self._db = db
        self._cluster = cluster
        self._settings = settings
        self._store = Storage(settings.resolved_store_url())
        self._duty = DutyLease(db, "deployments", settings.lease_seconds)
        self._told = ""
        self._told_at = 0.0
        self._quiet_since: tuple[str, float] | None = None

    async def tick(self) -> None:
        """Compare the wanted endpoints with Serve's applications, tell Serve if they differ, write statuses."""
        if not self._told and not await self._any_wanted():
            return
        async with self._duty.held() as mine:
            if mine:
                await self._settle()
            else:  # what this process told Serve may be undone by now
                self._told, self._quiet_since = "", None

    async def release(self) -> None:
        """Let another process take over at once."""
        await self._duty.release()

    async def _any_wanted(self) -> bool:
        async with self._db.read() as session:
            return (await session.scalar(select(Endpoint.id).limit(1))) is not None

    async def _settle(self) -> None:
        async with self._db.read() as session:
            query = select(Endpoint, Student, Job, Teacher).join(Student, Endpoint.student_id == Student.id)
            query = query.join(Job, Student.job_id == Job.id).join(Teacher, Job.teacher_id == Teacher.id)
            rows = (await session.execute(query.order_by(Endpoint.id))).tuples().all()
        config = serve_config([self._served(*row) for row in rows if row[0].deleted_at is None], self._settings)
        wanted = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
        if self._is_quiet(wanted):
            return
        try:
            apps = await self._cluster.serve_apps()
            if await self._tell(config, wanted, apps):
                apps = await self._cluster.serve_apps()
        except ClusterUnavailable as error:
            log.warning("deployments.cluster_unavailable", error=str(error))
            return
        await self._write([row[0] for row in rows], config, apps)
        settled = all(_is_up(apps, name) for name in _names(config)) and len(apps) == len(_names(config))
        self._quiet_since = (wanted, time.monotonic()) if settled else None

    def _is_quiet(self, wanted: str) -> bool:
        """Whether Serve was as wanted at the last look, and that was a moment ago."""
        if self._quiet_since is None:
            return False
        then, at = self._quiet_since
        return then == wanted and time.monotonic() - at < QUIET_SECONDS

    def _served(self, endpoint: Endpoint, student: Student, job: Job, teacher: Teacher) -> Served:
        channels, height, width = student.image_size
        source = url_of(teacher.source, self._store.url)
        return Served(
            name=endpoint.name,
            app=endpoint.app,
            student_url=self._store.url_of(student.path),
            teacher_source=source if endpoint.with_teacher else None,
            steps=tuple(student.steps),
            teacher_steps=int(job.spec["evaluation"]["teacher_steps"]),
            num_classes=student.num_classes,
            text=student.text,
            image_size=(channels, height, width),
            created=int(endpoint.created_at.timestamp()),
        )

    async def _tell(self, config: dict[str, Any], wanted: str, apps: Mapping[str, ServeApp]) -> bool:
        """PUT the configuration if it changed, or if Serve lost or kept what it should not have."""
        drifted = set(apps) != _names(config) and time.monotonic() - self._told_at > SETTLE_SECONDS
        if self._told == wanted and not drifted:
            return False
        await self._cluster.apply_serve(config)
        self._told, self._told_at = wanted, time.monotonic()
        log.info("deployments.applied", applications=sorted(_names(config)))
        return True

    async def _write(self, rows: Sequence[Endpoint], config: dict[str, Any], apps: Mapping[str, ServeApp]) -> None:
        shared = _names(config) - {row.app for row in rows}  # the gateway, without which nothing is reachable
        shared_up = all(_is_up(apps, name) for name in shared)
        for row in rows:
            if row.deleted_at is not None and row.app not in apps:
                async with self._db.write() as session:
                    await session.execute(delete(Endpoint).where(Endpoint.id == row.id))
                continue
            status, detail = _status(row, apps.get(row.app), shared_up)
            if (status, detail) != (row.status, row.detail):
                async with self._db.write() as session:
                    changed = update(Endpoint).where(Endpoint.id == row.id).values(status=status, detail=detail)
                    await session.execute(changed)


def _status(row: Endpoint, app: ServeApp | None, shared_up: bool) -> tuple[EndpointStatus, str]:
    if row.deleted_at is not None:
        return EndpointStatus.DELETING, "It is being taken down."
    if app is None:
        return EndpointStatus.DEPLOYING, "Waiting for the cluster to start it."
    if app.status in ("DEPLOY_FAILED", "UNHEALTHY"):
        return EndpointStatus.FAILED, app.message or "The cluster could not start it; look at its logs."
    if app.status == "RUNNING" and shared_up:
        return EndpointStatus.READY, "It is warm and answers."
    return EndpointStatus.DEPLOYING, "It is loading its weights and warming up."


def _names(config: Mapping[str, Any]) -> set[str]:
    return {app["name"] for app in config["applications"]}


def _is_up(apps: Mapping[str, ServeApp], name: str) -> bool:
    return name in apps and apps[name].status == "RUNNING"
