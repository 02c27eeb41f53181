"""A job's whole life, with everything going wrong that can."""

import pytest
from fake_cluster import FakeCluster
from fake_driver import Drivers, script
from service_fixtures import ClockedDatabase
from world import Crash, Fuse, World

from service.cluster import RayStatus
from service.errors import Conflict
from service.leases import LOOK_SECONDS
from service.settings import Settings
from service.status import Reason, Status, Wish
from service.tables import Outcome, Teacher

S, R = Status, Reason


@pytest.fixture
def world(db: ClockedDatabase, cluster: FakeCluster, settings: Settings, digits: Teacher) -> World:
    return World(db, cluster, settings)


async def test_a_job_that_meets_no_trouble(world: World) -> None:
    job_id = await world.submit()
    job = await world.until(job_id, S.SUCCEEDED)
    assert await world.reasons(job_id) == [R.SUBMITTED, R.DISPATCHED, R.TRAINING, R.EVALUATING, R.EXPORTED]
    assert job.started_at is not None
    assert (job.step, job.losses, job.failures) == (4, 0, 0)
    (attempt,) = await world.attempts(job_id)
    assert (attempt.reason, attempt.outcome) == (R.EXPORTED, Outcome.DONE)
    env = world.cluster.started[0].env
    assert set(env) == {"FEWSTEP_URL", "FEWSTEP_ATTEMPT_ID", "FEWSTEP_ATTEMPT_TOKEN"}
    await world.check(job_id)


async def test_jobs_wait_their_turn(world: World) -> None:
    ids = [await world.submit() for _ in range(4)]
    await world.round()
    assert [(await world.job(one)).status for one in ids] == [S.STARTING, S.STARTING, S.QUEUED, S.QUEUED]
    for one in ids:
        await world.until(one, S.SUCCEEDED)
    started = [process.submission_id for process in world.cluster.started]
    expected = [one.replace("_", "-") + "-a1" for one in ids]
    assert [set(started[:2]), set(started[2:])] == [set(expected[:2]), set(expected[2:])]


async def test_a_killed_driver_costs_a_loss_and_the_job_goes_on(world: World) -> None:
    job_id = await world.submit()
    await world.until(job_id, S.RUNNING)
    world.cluster.kill(world.cluster.started[0].submission_id)
    job = await world.until(job_id, S.QUEUED)
    assert (job.reason, job.detail, job.losses) == (R.DRIVER_DIED, "driver exit code 137", 1)
    await world.until(job_id, S.SUCCEEDED)
    assert [attempt.reason for attempt in await world.attempts(job_id)] == [R.DRIVER_DIED, R.EXPORTED]
    await world.check(job_id)


async def test_a_lost_head_costs_a_loss_and_the_job_goes_on(world: World) -> None:
    job_id = await world.submit()
    await world.until(job_id, S.RUNNING)
    world.cluster.lose_head()
    assert (await world.until(job_id, S.QUEUED)).reason is R.CLUSTER_LOST
    await world.until(job_id, S.SUCCEEDED)
    await world.check(job_id)


async def test_a_head_lost_before_the_first_report_costs_nothing(world: World) -> None:
    job_id = await world.submit()
    await world.reconciler.tick()
    world.cluster.lose_head()
    job = await world.until(job_id, S.SUCCEEDED)
    assert (job.losses, job.attempt) == (0, 1)


async def test_what_is_lost_too_often_is_given_up(world: World) -> None:
    world.settings = world.settings.model_copy(update={"max_losses": 2})
    world.restart()
    job_id = await world.submit()
    for _ in range(3):
        await world.until(job_id, S.RUNNING)
        world.cluster.kill(world.cluster.started[-1].submission_id)
        await world.until(job_id, S.QUEUED, S.FAILED)
    job = await world.job(job_id)
    assert (job.status, job.reason) == (S.FAILED, R.TOO_MANY_LOSSES)
    await world.retry(job_id)
    job = await world.until(job_id, S.SUCCEEDED)
    assert job.losses == 0
    await world.check(job_id)


async def test_an_unreachable_cluster_proves_nothing(world: World) -> None:
    job_id = await world.submit()
    await world.until(job_id, S.RUNNING)
    world.cluster.down = True
    await world.until(job_id, S.FINISHING)  # the job's own reports still count
    assert len(await world.attempts(job_id)) == 1
    world.cluster.down = False
    await world.until(job_id, S.SUCCEEDED)


async def test_done_is_believed_without_the_cluster(world: World) -> None:
    """The control plane was away when the job ended, and the head is gone when it comes back."""
    job_id = await world.submit()
    await world.reconciler.tick()
    world.cluster.run_pending()
    for _ in range(len(script()) + 1):
        await world.drivers.step()
    world.cluster.lose_head()
    world.cluster.down = True
    world.restart()
    await world.reconciler.tick()
    assert (await world.job(job_id)).status is S.SUCCEEDED
    assert await world.reasons(job_id) == [R.SUBMITTED, R.DISPATCHED, R.TRAINING, R.EVALUATING, R.EXPORTED]


async def test_a_failure_is_final_unless_the_spec_allows_more(world: World) -> None:
    broken = {"type": "failure", "reason": "diverged", "message": "loss is nan"}
    for max_failures, end in ((0, S.FAILED), (1, S.SUCCEEDED)):
        job_id = await world.submit(max_failures=max_failures)
        await world.until(job_id, S.RUNNING)
        driver = world.drivers.drivers[id(world.cluster.started[-1])]
        driver.script = [*driver.script[: driver.said], broken]
        job = await world.until(job_id, end)
        assert (job.losses, job.failures) == (0, max_failures)
        first = (await world.attempts(job_id))[0]
        assert (first.reason, first.detail) == (R.DIVERGED, "loss is nan")
        assert R.DIVERGED in await world.reasons(job_id)
        await world.check(job_id)


@pytest.mark.parametrize("at", [S.QUEUED, S.STARTING, S.RUNNING, S.FINISHING])
async def test_cancel(world: World, at: Status) -> None:
    job_id = await world.submit()
    await world.until(job_id, at)
    await world.wish(job_id, Wish.CANCEL)
    job = await world.until(job_id, S.CANCELLED)
    assert job.reason is R.USER_CANCEL
    with pytest.raises(Conflict, match="already over"):
        await world.wish(job_id, Wish.CANCEL)
    await world.retry(job_id)
    await world.until(job_id, S.SUCCEEDED)
    await world.check(job_id)


@pytest.mark.parametrize("at", [S.QUEUED, S.STARTING, S.RUNNING])
async def test_pause_and_resume(world: World, at: Status) -> None:
    job_id = await world.submit()
    await world.until(job_id, at)
    await world.wish(job_id, Wish.PAUSE)
    assert (await world.until(job_id, S.PAUSED)).reason is R.USER_PAUSE
    for _ in range(3):
        await world.round()
    assert (await world.job(job_id)).status is S.PAUSED
    await world.wish(job_id, Wish.RUN)
    await world.until(job_id, S.SUCCEEDED)
    assert R.USER_RESUME in await world.reasons(job_id)
    await world.check(job_id)


async def test_a_queued_job_is_cancelled_while_the_cluster_is_away(world: World) -> None:
    world.cluster.down = True
    job_id = await world.submit()
    await world.wish(job_id, Wish.CANCEL)
    await world.reconciler.tick()
    assert (await world.job(job_id)).status is S.CANCELLED


async def test_who_does_not_stop_is_stopped(world: World) -> None:
    world.drivers.obey = False
    job_id = await world.submit()
    await world.until(job_id, S.RUNNING)
    driver = world.drivers.drivers[id(world.cluster.started[0])]
    driver.script = [*driver.script[:-1], *[{"type": "log", "message": "still here"}] * 99]
    await world.wish(job_id, Wish.CANCEL)
    for _ in range(3):
        await world.round()
    assert not world.cluster.started[0].stopping
    world.db.wait(world.settings.cancel_deadline)
    job = await world.until(job_id, S.CANCELLED)
    assert job.reason is R.FORCED
    assert world.cluster.started[0].status is RayStatus.STOPPED


async def test_what_ray_cannot_stop_is_fenced_and_swept_later(world: World) -> None:
    """Ray leaves a pending job pending, stopped or not."""
    job_id = await world.submit()
    await world.reconciler.tick()
    await world.wish(job_id, Wish.CANCEL)
    for _ in range(2):
        world.db.wait(world.settings.cancel_deadline + 1)
        await world.reconciler.tick()
    assert (await world.job(job_id)).reason is R.FORCED
    process = world.cluster.started[0]
    assert process.status is RayStatus.PENDING
    process.stopping = False
    await world.submit()
    world.db.wait(world.settings.cancel_deadline + 1)
    await world.reconciler.tick()
    assert process.stopping
    process.status = RayStatus.RUNNING
    await world.drivers.step()
    assert process.status is RayStatus.FAILED  # its first word was refused
    await world.check(job_id)


async def test_silence_is_a_loss(world: World) -> None:
    job_id = await world.submit()
    await world.until(job_id, S.RUNNING)
    world.db.wait(world.settings.stall_deadline + 1)
    await world.reconciler.tick()
    world.cluster.settle_stops()
    world.db.wait(LOOK_SECONDS + 1)
    await world.reconciler.tick()
    job = await world.job(job_id)
    assert (job.status, job.reason, job.losses) == (S.QUEUED, R.STALLED, 1)
    await world.until(job_id, S.SUCCEEDED)


async def test_an_answer_that_was_lost_starts_nothing_twice(world: World) -> None:
    world.cluster.lose_answers = True
    job_id = await world.submit()
    for _ in range(3):
        await world.reconciler.tick()
    assert (await world.job(job_id)).status is S.STARTING
    world.cluster.lose_answers = False
    await world.until(job_id, S.SUCCEEDED)
    assert len(world.cluster.started) == 1


async def test_a_restart_at_every_round_changes_nothing(world: World) -> None:
    job_id = await world.submit()
    for _ in range(40):
        await world.round()
        world.restart()
    assert (await world.job(job_id)).status is S.SUCCEEDED
    assert len(world.cluster.started) == 1
    await world.check(job_id)


async def test_a_crash_between_any_two_statements_heals(
    db: ClockedDatabase, settings: Settings, digits: Teacher
) -> None:
    """One job loses its driver, then is done; another is cancelled. The control plane dies at the n-th boundary."""
    boundary = 0
    while True:
        fuse = Fuse()
        cluster = FakeCluster()
        world = World(db, cluster, settings)
        world.restart(fuse)
        world.drivers.sends = 1
        first, second = await world.submit(), await world.submit()
        fuse.left = boundary
        killed = False

        def said(job_id: str, drivers: Drivers = world.drivers) -> int:
            mine = job_id.replace("_", "-")
            found = drivers.drivers.values()
            return max((one.said for one in found if one.process.submission_id.startswith(mine)), default=0)

        for _ in range(90):
            jobs_now = [await world.job(one) for one in (first, second)]
            if tuple(job.status for job in jobs_now) == (S.SUCCEEDED, S.CANCELLED):
                break
            if said(first) and not killed:
                cluster.kill(next(one for one in cluster.known if one.startswith(first.replace("_", "-"))))
                killed = True
            if said(second) and jobs_now[1].wish is Wish.RUN:
                await world.wish(second, Wish.CANCEL)
            try:
                await world.round()
                for _ in range(5):
                    await world.drivers.step()
            except* Crash:
                world.restart()
        else:
            raise AssertionError(f"not over after a crash at boundary {boundary}: {jobs_now}")
        for one in (first, second):
            await world.check(one)
        assert [job.attempt for job in jobs_now] == [2, 1]
        if not fuse.burnt:
            break
        boundary += 2 if db.is_sqlite else 5  # the statements are the same on both, so most have their turn
    assert boundary > 20
