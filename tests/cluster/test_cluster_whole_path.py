"""From a job with two workers to an endpoint, all parts real."""

import base64
import io
import time
from collections.abc import Iterator

import numpy as np
import openai
import psutil
import pytest
import torch
from PIL import Image

from api.client import Client, ServerError
from api.schemas import EndpointView, JobView
from deploy.replica import encode
from service.status import Reason, Status
from workers.artifact import load_student

pytestmark = pytest.mark.ray

SPEC = {
    "teacher": "digits",
    "method": {"kind": "consistency", "iterations": 12, "batch_size": 16},
    "resources": {"workers": 2},
    "checkpoint_every": 5,
    "preview_every": 6,
    "evaluation": {"samples": 100, "teacher_steps": 4},
}


@pytest.fixture(scope="module")
def client(platform) -> Iterator[Client]:
    with Client(platform.url, platform.key) as client:
        yield client


@pytest.fixture(scope="module")
def job(client: Client) -> JobView:
    return client.wait(client.submit(SPEC).id, timeout=300)


@pytest.fixture(scope="module")
def endpoint(client: Client, job: JobView) -> EndpointView:
    client.create_endpoint("digits", job.students[0])
    return client.wait_endpoint("digits", timeout=180)


def test_a_job_reports_everything_once(client: Client, job: JobView, platform) -> None:
    assert (job.status, job.reason) == (Status.SUCCEEDED, Reason.EXPORTED), job.detail
    assert len(job.attempts) == 1
    assert [metric.step for metric in client.metrics(job.id)] == list(range(1, 13))
    samples = client.samples(job.id)
    assert {(sample.role, sample.step) for sample in samples} >= {("teacher", 0), ("student", 6), ("student", 12)}
    for sample in samples:
        assert Image.open(io.BytesIO(client.call("GET", sample.url).content)).format == "PNG"
    found = client.call("GET", f"/v1/jobs/{job.id}/checkpoints").json()["data"]
    assert sorted(checkpoint["step"] for checkpoint in found) == [5, 10, 12]
    kept = sorted(path.name for path in (platform.home / "store" / "jobs" / job.id / "run").glob("step-*"))
    assert kept == ["step-00000010", "step-00000012"], "the last two, where the control plane was told they are"
    assert any("2 workers" in line.message for line in client.logs(job.id))


def test_an_endpoint_gives_the_students_own_images(client: Client, endpoint: EndpointView, platform) -> None:
    assert endpoint.status == "ready", endpoint.detail
    record = client.student(endpoint.student_id)
    folder = next((platform.home / "store" / "jobs" / record.job_id / "students").glob("*/manifest.json")).parent
    student = load_student(folder)
    gateway = openai.OpenAI(base_url=endpoint.url, api_key="any")
    for steps in record.steps:
        extra = {"seed": 40, "num_inference_steps": steps}
        answer = gateway.images.generate(model="digits", prompt="7", n=3, extra_body=extra)
        own = encode(student.generate(torch.tensor([7, 7, 7]), [40, 41, 42], steps))
        for image, expected in zip(answer.data or [], own, strict=True):
            assert image.b64_json is not None
            served, local = (
                np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))).astype(int)
                for png in (image.b64_json, expected)
            )
            assert np.abs(served - local).max() <= 1  # of 255
    teacher = gateway.images.generate(model="digits:teacher", prompt="7", extra_body={"num_inference_steps": 5})
    assert len(teacher.data or []) == 1
    with pytest.raises(openai.NotFoundError, match="no model 'digit'"):
        gateway.images.generate(model="digit", prompt="7")


def test_replicas_listen_on_loopback_alone(endpoint: EndpointView) -> None:
    replicas = {p.pid for p in psutil.process_iter(["name"]) if p.info["name"].startswith("ray::Serve")}
    listening = [c for c in psutil.net_connections("inet") if c.pid in replicas and c.status == psutil.CONN_LISTEN]
    assert listening
    assert {connection.laddr.ip.removeprefix("::ffff:") for connection in listening} <= {"127.0.0.1", "::1"}


def test_another_endpoint_leaves_the_gateway_running_and_deleting_takes_it_away(
    client: Client, job: JobView, endpoint: EndpointView, platform
) -> None:
    port = int(platform.gateway_url.rsplit(":", 1)[1])

    def gateway() -> int | None:
        listening = [c for c in psutil.net_connections("inet") if c.laddr.port == port and c.status == "LISTEN"]
        return listening[0].pid

    before = gateway()
    client.create_endpoint("again", job.students[0], with_teacher=False)
    client.wait_endpoint("again", timeout=180)
    assert client.generate("again", prompt="1").num_inference_steps == 1
    assert gateway() == before
    client.delete_endpoint("again")
    while "again" in {found.name for found in client.endpoints()}:
        time.sleep(0.1)
    with pytest.raises(ServerError, match="no such endpoint"):
        client.generate("again", prompt="1")
    assert gateway() == before


def test_a_job_is_cancelled_at_a_step_and_leaves_its_state(client: Client, platform) -> None:
    spec = SPEC | {"method": {"kind": "consistency", "iterations": 100_000, "batch_size": 16}}
    job = client.submit(spec)
    for seen in client.watch(job.id, every=0.2):
        if seen.step >= 3:
            client.act(job.id, "cancel")
            break
    job = client.wait(job.id, timeout=60)
    assert (job.status, job.reason) == (Status.CANCELLED, Reason.USER_CANCEL)
    found = client.call("GET", f"/v1/jobs/{job.id}/checkpoints").json()["data"]
    assert max(checkpoint["step"] for checkpoint in found) == job.step
