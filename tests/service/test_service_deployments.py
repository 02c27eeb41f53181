"""Endpoints against Serve: told once, told again when it forgot, believed only when everything needed is up."""

import pytest
from fake_cluster import FakeCluster
from fake_driver import report, student
from service_fixtures import ClockedDatabase
from world import Crash, Fuse, FusedCluster, FusedDatabase

from service import attempts, deployments, endpoints, jobs, students, submission
from service.cluster import ServeApp
from service.deployments import Deployments
from service.errors import Conflict, NotFound
from service.projects import DEFAULT
from service.settings import Settings
from service.spec import JobSpec
from service.status import Reason, Status
from service.tables import EndpointStatus, Student, Teacher

SPEC = JobSpec.model_validate({"teacher": "digits", "method": {"kind": "progressive"}, "name": "mine"})
E = EndpointStatus


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployments, "QUIET_SECONDS", -1.0)
    monkeypatch.setattr(deployments, "SETTLE_SECONDS", -1.0)


async def exported(db: ClockedDatabase, digits: Teacher) -> Student:
    async with db.write() as session:
        now = await db.now(session)
        job = await submission.submit(session, DEFAULT, SPEC, now)
        await jobs.advance(session, job, Status.STARTING, Reason.DISPATCHED, now, attempt=1)
        attempt = await attempts.create(session, job.id, 1, now)
        await attempts.report(session, attempt.id, report(student()), now)
        return await students.get(session, DEFAULT, "mine-progressive-4")


async def create(db: ClockedDatabase, made: Student, name: str) -> str:
    async with db.write() as session:
        endpoint, _ = await endpoints.create(session, name, made, name != "plain", await db.now(session))
    return endpoint.app


async def status(db: ClockedDatabase, name: str) -> EndpointStatus:
    async with db.read() as session:
        return (await endpoints.get(session, DEFAULT, name))[0].status


async def test_one_application_each_and_one_put(
    db: ClockedDatabase, cluster: FakeCluster, settings: Settings, digits: Teacher
) -> None:
    made = await exported(db, digits)
    reconciler = Deployments(db, cluster, settings)
    await reconciler.tick()
    assert cluster.puts == []  # Serve is not even started without need
    names = {await create(db, made, name) for name in ("fast", "plain")}
    for _ in range(3):
        await reconciler.tick()
    assert len(cluster.puts) == 1
    applications = {app["name"]: app for app in cluster.puts[0]["applications"]}
    assert names < set(applications)
    arguments = [applications[name]["args"] for name in sorted(names)]
    assert {args["student_url"] for args in arguments} == {f"{settings.resolved_store_url()}/{made.path}"}
    assert [args["teacher_source"] for args in arguments] == ["builtin:digits", None]
    assert await status(db, "fast") is E.DEPLOYING


async def test_ready_needs_the_gateway_too(
    db: ClockedDatabase, cluster: FakeCluster, settings: Settings, digits: Teacher
) -> None:
    app = await create(db, await exported(db, digits), "fast")
    reconciler = Deployments(db, cluster, settings)
    await reconciler.tick()
    cluster.apps[app] = ServeApp(app, "RUNNING", "")
    await reconciler.tick()
    assert await status(db, "fast") is E.DEPLOYING
    cluster.apps_become("RUNNING")
    await reconciler.tick()
    assert await status(db, "fast") is E.READY
    cluster.apps[app] = ServeApp(app, "DEPLOY_FAILED", "no such file")
    await reconciler.tick()
    async with db.read() as session:
        endpoint, _ = await endpoints.get(session, DEFAULT, "fast")
    assert (endpoint.status, endpoint.detail) == (E.FAILED, "no such file")


async def test_a_lost_head_is_told_again(
    db: ClockedDatabase, cluster: FakeCluster, settings: Settings, digits: Teacher
) -> None:
    await create(db, await exported(db, digits), "fast")
    reconciler = Deployments(db, cluster, settings)
    await reconciler.tick()
    cluster.apps_become("RUNNING")
    await reconciler.tick()
    cluster.lose_head()
    cluster.down = True
    await reconciler.tick()
    assert await status(db, "fast") is E.READY  # silence proves nothing
    cluster.down = False
    await reconciler.tick()
    assert len(cluster.puts) == 2
    assert cluster.puts[0] == cluster.puts[1]
    assert await status(db, "fast") is E.DEPLOYING


async def test_deleting_ends_when_the_application_is_gone(
    db: ClockedDatabase, cluster: FakeCluster, settings: Settings, digits: Teacher
) -> None:
    made = await exported(db, digits)
    app = await create(db, made, "fast")
    reconciler = Deployments(db, cluster, settings)
    await reconciler.tick()
    async with db.write() as session:
        await endpoints.delete(session, DEFAULT, "fast", await db.now(session))
        with pytest.raises(Conflict, match="being deleted"):
            await endpoints.create(session, "fast", made, True, await db.now(session))
    lingering = cluster.apps[app]
    cluster.down = True
    await reconciler.tick()
    cluster.down = False
    await reconciler.tick()
    cluster.apps[app] = ServeApp(app, "DELETING", "")
    assert app not in {one["name"] for one in cluster.puts[-1]["applications"]}
    del cluster.apps[lingering.name]
    await reconciler.tick()
    with pytest.raises(NotFound):
        await status(db, "fast")
    await create(db, made, "fast")


async def test_a_crash_between_any_two_statements_heals(
    db: ClockedDatabase, settings: Settings, digits: Teacher
) -> None:
    made = await exported(db, digits)
    for boundary in range(6):
        fuse = Fuse()
        cluster = FakeCluster()
        name = f"e{boundary}"
        await create(db, made, name)
        fuse.left = boundary
        db.wait(settings.lease_seconds + 1)
        reconciler = Deployments(FusedDatabase(db, fuse), FusedCluster(cluster, fuse), settings)
        for _ in range(5):
            try:
                await reconciler.tick()
            except Crash:
                reconciler = Deployments(db, cluster, settings)
                await reconciler.tick()
                assert await status(db, name) is not E.READY  # the dead one's duty has not run out
                db.wait(settings.lease_seconds + 1)
            cluster.apps_become("RUNNING")
        assert fuse.burnt
        assert await status(db, name) is E.READY


async def test_one_process_tells_serve_and_another_takes_over(
    db: ClockedDatabase, cluster: FakeCluster, settings: Settings, digits: Teacher
) -> None:
    made = await exported(db, digits)
    await create(db, made, "fast")
    first, second, third = (Deployments(db, cluster, settings) for _ in range(3))
    for _ in range(3):
        await first.tick()
        await second.tick()
    assert len(cluster.puts) == 1
    await create(db, made, "plain")
    await second.tick()
    assert len(cluster.puts) == 1
    db.wait(settings.lease_seconds + 1)  # the first is not heard of any more
    await second.tick()
    assert len(cluster.puts) == 2
    await first.tick()
    await second.release()
    await third.tick()
    await second.tick()
    assert len(cluster.puts) == 3
