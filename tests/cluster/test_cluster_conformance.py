"""One suite for the real Ray and the fake one: what the control plane may expect of a cluster."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import pytest_asyncio
from fake_cluster import FakeCluster, Started
from fake_ray import FakeRay
from pydantic import SecretStr
from real_ray import RealRay

from service.cluster import ClusterUnavailable, RayCluster, RayJob, RayStatus
from service.settings import Settings

PROGRAM = "import os, time; time.sleep(float(os.environ['SECONDS'])); raise SystemExit(int(os.environ['CODE']))"
TOKEN = "t" * 64


async def program(process: Started) -> int:
    """PROGRAM, as a driver of the fake."""
    await asyncio.sleep(float(process.env["SECONDS"]))
    return int(process.env["CODE"])


class Demanding(RayCluster):
    """Asks for more CPUs than there are, so that its submissions stay pending."""

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        if method == "POST" and path == "/api/jobs/":
            options["json"] = options["json"] | {"entrypoint_num_cpus": 1000}
        return await super()._ask(method, path, **options)


@dataclass
class Subject:
    """A cluster that runs PROGRAM, and what can happen to it."""

    settings: Settings
    kill_driver: Callable[[str], None]
    lose_head: Callable[[], None]
    ray: RayCluster

    async def start(self, seconds: float = 0, code: int = 0, name: str | None = None) -> str:
        name = name or f"test-{uuid4().hex[:12]}"
        await self.ray.submit(name, {"SECONDS": str(seconds), "CODE": str(code), "NAME": name})
        return name

    async def job(self, name: str) -> RayJob:
        return (await self.ray.jobs())[name]

    async def until(self, name: str, *statuses: RayStatus, seconds: float = 60) -> list[RayStatus]:
        """Wait for one of these statuses; returns all that were seen on the way, each once."""
        seen: list[RayStatus] = []
        deadline = time.monotonic() + seconds
        while not seen or seen[-1] not in statuses:
            status = (await self.job(name)).status
            if not seen or status is not seen[-1]:
                seen.append(status)
            assert time.monotonic() < deadline, f"{name} is {seen}, not {statuses}"
            await asyncio.sleep(0.02)
        return seen


@pytest.fixture(scope="module")
def entrypoint() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.cluster.ENTRYPOINT", f'exec python -c "{PROGRAM}"')
        yield


@pytest.fixture(scope="module")
def fake(entrypoint: None) -> Iterator[tuple[Settings, Any, Any]]:
    with FakeRay(program, TOKEN) as ray:
        settings = Settings(ray_dashboard_url=ray.url, ray_token=SecretStr(TOKEN))
        yield settings, lambda name: ray.do(lambda c: c.kill(name)), lambda: ray.do(FakeCluster.lose_head)


@pytest.fixture(scope="module")
def real(entrypoint: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Any, Any]]:
    with RealRay(Path(tmp_path_factory.mktemp("ray"))) as ray:
        yield Settings(ray_dashboard_url=ray.url, ray_token=SecretStr(ray.token)), _kill_driver, ray.lose_head


def _kill_driver(name: str) -> None:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.environ().get("NAME") == name and PROGRAM in process.cmdline():
                process.send_signal(signal.SIGKILL)
                return
    raise AssertionError(f"{name} has no process")


@pytest_asyncio.fixture(params=["fake", pytest.param("real", marks=pytest.mark.ray)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    settings, kill_driver, lose_head = request.getfixturevalue(request.param)
    ray = RayCluster(settings)
    yield Subject(settings, kill_driver, lose_head, ray)
    await ray.close()


async def test_a_driver_goes_from_pending_over_running_to_its_end(subject: Subject) -> None:
    name = await subject.start(seconds=0.5)
    seen = await subject.until(name, RayStatus.SUCCEEDED)
    assert seen == [RayStatus.PENDING, RayStatus.RUNNING, RayStatus.SUCCEEDED][-len(seen) :], "in this order"
    assert RayStatus.RUNNING in seen


async def test_an_id_is_taken_once_and_for_good(subject: Subject) -> None:
    """A repeat is adopted while the driver runs and after its end, and starts nothing."""
    name = await subject.start(code=7)
    await subject.start(seconds=30, name=name)
    await subject.until(name, RayStatus.FAILED)
    await subject.start(seconds=30, name=name)
    await asyncio.sleep(0.3)
    assert (await subject.job(name)).status is RayStatus.FAILED


async def test_an_exit_code_other_than_zero_is_a_failure(subject: Subject) -> None:
    name = await subject.start(code=7)
    await subject.until(name, RayStatus.FAILED)
    assert "exit code 7" in (await subject.job(name)).message


async def test_a_killed_driver_has_failed(subject: Subject) -> None:
    name = await subject.start(seconds=60)
    await subject.until(name, RayStatus.RUNNING)
    for _ in range(100):  # Ray says RUNNING a moment before the process is there
        try:
            subject.kill_driver(name)
            break
        except AssertionError:
            await asyncio.sleep(0.1)
    await subject.until(name, RayStatus.FAILED, seconds=20)
    assert (await subject.job(name)).message


async def test_stopping_a_running_driver_takes_effect_a_moment_later(subject: Subject) -> None:
    name = await subject.start(seconds=60)
    await subject.until(name, RayStatus.RUNNING)
    await subject.ray.stop(name)
    await subject.ray.stop(name)  # a repeat is harmless
    assert await subject.until(name, RayStatus.STOPPED, seconds=40) in (
        [RayStatus.RUNNING, RayStatus.STOPPED],
        [RayStatus.STOPPED],
    )


async def test_what_was_stopped_before_it_ran_never_ends_well(subject: Subject) -> None:
    name = await subject.start(seconds=60)
    await subject.ray.stop(name)
    await subject.until(name, RayStatus.STOPPED, RayStatus.FAILED, seconds=40)


async def test_what_has_no_room_is_pending_and_stays_so_when_stopped(subject: Subject) -> None:
    name = f"test-{uuid4().hex[:12]}"
    demanding = Demanding(subject.settings)
    await demanding.submit(name, {"SECONDS": "0", "CODE": "0"})
    await demanding.close()
    await subject.ray.stop(name)
    await asyncio.sleep(3)
    assert (await subject.job(name)).status is RayStatus.PENDING


async def test_stopping_what_is_over_or_unknown_changes_nothing(subject: Subject) -> None:
    name = await subject.start()
    await subject.until(name, RayStatus.SUCCEEDED)
    await subject.ray.stop(name)
    await subject.ray.stop("never-heard-of")
    assert (await subject.job(name)).status is RayStatus.SUCCEEDED
    assert "never-heard-of" not in await subject.ray.jobs()


async def test_jobs_lists_every_submission_over_or_not(subject: Subject) -> None:
    over = await subject.start()
    await subject.until(over, RayStatus.SUCCEEDED)
    alive = await subject.start(seconds=60)
    found = await subject.ray.jobs()
    assert {name: found[name].over for name in (over, alive)} == {over: True, alive: False}
    assert all(name == job.submission_id for name, job in found.items())
    await subject.ray.stop(alive)


async def test_nodes_are_what_the_cluster_has_in_all(subject: Subject) -> None:
    name = await subject.start(seconds=60)
    [node] = await subject.ray.nodes()
    assert node.id
    assert node.cpus >= 1
    assert node.gpus == 0
    assert [node] == await subject.ray.nodes(), "the same machine has the same id"
    await subject.ray.stop(name)


async def test_a_wrong_token_is_refused(subject: Subject) -> None:
    wrong = RayCluster(subject.settings.model_copy(update={"ray_token": SecretStr("wrong")}))
    with pytest.raises(ClusterUnavailable, match="403"):
        await wrong.jobs()
    await wrong.close()


async def test_serve_has_the_applications_of_the_last_put_alone(subject: Subject) -> None:
    assert await subject.ray.serve_apps() == {}, "and nothing while it does not run"
    app = {"name": "one", "route_prefix": "/one", "import_path": "no_such_module:build"}
    http = {"host": "127.0.0.1", "port": 0}
    await subject.ray.apply_serve({"proxy_location": "Disabled", "http_options": http, "applications": [app]})
    for _ in range(600):
        found = (await subject.ray.serve_apps())["one"]
        if found.status == "DEPLOY_FAILED":
            break
        assert found.status in ("NOT_STARTED", "DEPLOYING")
        await asyncio.sleep(0.1)
    assert "no_such_module" in found.message
    await subject.ray.apply_serve({"proxy_location": "Disabled", "http_options": http, "applications": []})
    for _ in range(300):
        if "one" not in await subject.ray.serve_apps():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("an application that is no longer declared stays")


async def test_a_lost_head_forgets_everything_and_its_ids_are_free_again(subject: Subject) -> None:
    over, alive = await subject.start(), await subject.start(seconds=60)
    await subject.until(over, RayStatus.SUCCEEDED)
    await asyncio.to_thread(subject.lose_head)
    assert await subject.ray.jobs() == {}
    assert await subject.ray.serve_apps() == {}
    await subject.start(name=alive)
    await subject.until(alive, RayStatus.SUCCEEDED)
