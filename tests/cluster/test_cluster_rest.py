"""RayCluster's reading of Ray's answers, including those that Ray gives no type for."""

import json
from collections.abc import Callable

import httpx
import pytest
from pydantic import SecretStr

from service.cluster import ENTRYPOINT, ClusterUnavailable, RayCluster, RayStatus
from service.settings import Settings

Answer = Callable[[httpx.Request], httpx.Response]
DUPLICATE = "Traceback ... ValueError: Job with submission_id job-1-a1 already exists. Please use a different one."


def cluster(answer: Answer) -> RayCluster:
    settings = Settings(ray_dashboard_url="http://ray", ray_token=SecretStr("token"))
    return RayCluster(settings, httpx.MockTransport(answer))


async def test_a_submission_carries_its_environment_and_the_token() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"submission_id": "job-1-a1"})

    await cluster(answer).submit("job-1-a1", {"FEWSTEP_URL": "http://api"})
    body = json.loads(seen[0].content)
    assert body["submission_id"] == "job-1-a1"
    assert body["entrypoint"] == ENTRYPOINT
    assert body["runtime_env"]["env_vars"]["FEWSTEP_URL"] == "http://api"
    assert body["runtime_env"]["env_vars"]["RAY_JOB_STOP_SIGNAL"] == "SIGINT"
    assert seen[0].headers["Authorization"] == "Bearer token"


async def test_an_id_that_ray_knows_already_is_adopted() -> None:
    await cluster(lambda _: httpx.Response(500, text=DUPLICATE)).submit("job-1-a1", {})


async def test_jobs_leaves_out_drivers_that_nobody_submitted() -> None:
    found = [
        {"type": "SUBMISSION", "submission_id": "job-1-a1", "status": "RUNNING", "message": None},
        {"type": "DRIVER", "submission_id": None, "status": "RUNNING"},
        {"type": "SUBMISSION", "submission_id": "job-2-a1", "status": "FAILED", "message": "exit code 7"},
    ]
    jobs = await cluster(lambda _: httpx.Response(200, json=found)).jobs()
    assert set(jobs) == {"job-1-a1", "job-2-a1"}
    assert not jobs["job-1-a1"].over
    assert (jobs["job-2-a1"].status, jobs["job-2-a1"].message) == (RayStatus.FAILED, "exit code 7")
    assert jobs["job-2-a1"].over


async def test_stopping_what_ray_does_not_know_is_fine() -> None:
    await cluster(lambda _: httpx.Response(404, text="Job nope does not exist.")).stop("nope")


async def test_serve_apps_by_name() -> None:
    found = {"applications": {"gateway": {"status": "DEPLOY_FAILED", "message": "no"}}}
    apps = await cluster(lambda _: httpx.Response(200, json=found)).serve_apps()
    assert (apps["gateway"].status, apps["gateway"].message) == ("DEPLOY_FAILED", "no")


def away(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize("answer", [away, lambda _: httpx.Response(500, text="broken"), lambda _: httpx.Response(403)])
async def test_anything_else_means_unavailable(answer: Answer) -> None:
    ray = cluster(answer)
    for call in (ray.submit("a", {}), ray.jobs(), ray.stop("a"), ray.apply_serve({}), ray.serve_apps()):
        with pytest.raises(ClusterUnavailable):
            await call
    await ray.close()


@pytest.mark.ray
async def test_against_ray_itself(platform) -> None:
    """An id is taken once, runs once, and can be stopped; what Ray does not know is left alone."""
    token = (platform.home / "ray_token").read_text()
    ray = RayCluster(Settings(ray_dashboard_url=platform.ray_url, ray_token=SecretStr(token)))
    env = {"FEWSTEP_URL": "http://127.0.0.1:9", "FEWSTEP_ATTEMPT_ID": "att_x", "FEWSTEP_ATTEMPT_TOKEN": "x"}
    await ray.submit("test-of-the-door", env)
    await ray.submit("test-of-the-door", env)
    assert "test-of-the-door" in await ray.jobs()
    await ray.stop("test-of-the-door")
    await ray.stop("unknown")
    wrong = RayCluster(Settings(ray_dashboard_url=platform.ray_url, ray_token=SecretStr("wrong")))
    with pytest.raises(ClusterUnavailable):
        await wrong.jobs()
    await ray.close()
    await wrong.close()
