"""What docker-compose.yml describes, run by hand, while processes of it are killed in the middle of jobs."""

import os
import signal
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
from diffusers import ConsistencyModelPipeline
from fsspec.core import url_to_fs
from topology import Topology

from api.client import Client, ServerError
from api.schemas import JobView
from service.status import TERMINAL, Status

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere loopback is one address"),
]
SPEC: dict[str, Any] = {
    "teacher": "digits",
    "method": {"kind": "progressive", "first_steps": 2, "rung_iterations": 60, "batch_size": 16},
    "checkpoint_every": 20,
    "preview_every": 1000,
    "evaluation": {"samples": 100, "teacher_steps": 4},
}


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    running = Topology(tmp_path_factory.mktemp("shape"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


def until_step(client: Client, job: JobView, step: int) -> JobView:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        job = client.job(job.id)
        assert job.status not in TERMINAL, f"the job ended too early: {job.status}, {job.detail}"
        if job.step >= step:
            return job
        time.sleep(0.05)
    raise AssertionError(f"no step {step} within five minutes: {job}")


def train_worker(attempt: str) -> psutil.Process:
    for process in psutil.process_iter():
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()) and process.environ()["FEWSTEP_ATTEMPT_ID"] == attempt:
                return process
        except (psutil.Error, KeyError):
            continue
    raise AssertionError("no worker of this attempt")


def test_a_control_plane_dies_and_its_job_does_not(topology: Topology, tmp_path: Path) -> None:
    key = topology.secret("api_key")
    with Client(topology.url("control-plane-1"), key) as first:
        job = first.submit(SPEC)
    with Client(topology.url("control-plane-2"), key) as client, Client(topology.url("proxy"), key) as public:
        job = until_step(client, job, 10)
        os.kill(topology.children["control-plane-1"].pid, signal.SIGKILL)
        job = client.wait(job.id, timeout=300)
        assert job.status is Status.SUCCEEDED, job.detail
        assert public.job(job.id).status is Status.SUCCEEDED, "the proxy goes on with the control plane that is left"
        with pytest.raises(ServerError):
            Client(topology.url("control-plane-1"), key).job(job.id)

        assert len(job.attempts) == 1, "its workers report to the other one"
        steps = [metric.step for metric in client.metrics(job.id)]
        assert steps == list(range(1, len(steps) + 1)), "every step once"

        student = next(client.students(job.id))
        archive = client.download(student.archive_url, tmp_path / "student.zip")
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(tmp_path / "student")
        assert {Path(path).name for path in in_s3(topology, f"jobs/{job.id}/run")} >= {"state.safetensors"}
        stored = in_s3(topology, f"jobs/{job.id}/students")
        weights = "unet/diffusion_pytorch_model.safetensors"
        assert (tmp_path / "student" / weights).read_bytes() in [stored[p] for p in stored if p.endswith(weights)]
        pipeline = ConsistencyModelPipeline.from_pretrained(tmp_path / "student")
        images = pipeline(batch_size=2, class_labels=[3, 7], num_inference_steps=1, generator=torch.manual_seed(0))
        assert images.images[0].size == (8, 8)


@pytest.mark.slow
def test_a_worker_goes_on_from_s3_and_the_student_is_served_from_there(topology: Topology) -> None:
    with Client(topology.url("proxy"), topology.secret("api_key")) as client:
        job = until_step(client, client.submit(SPEC), 30)
        train_worker(job.attempts[-1].id).kill()
        job = client.wait(job.id, timeout=300)
        assert job.status is Status.SUCCEEDED, job.detail
        assert len(job.attempts) == 1, [(attempt.reason, attempt.detail) for attempt in job.attempts]
        assert any("Going on from step-" in line.message for line in client.logs(job.id))
        steps = [metric.step for metric in client.metrics(job.id)]
        assert steps == list(range(1, len(steps) + 1))

        client.create_endpoint("seven", job.students[0])
        assert client.wait_endpoint("seven", timeout=120).status == "ready"
        assert len(client.generate("seven", class_label=7).data) == 1
    bare = httpx.post(f"{topology.url('ray-head', 8701)}/v1/images/generations", json={}, trust_env=False)
    assert bare.status_code == 401, "the gateway is on the head, and asks for its key"


def in_s3(topology: Topology, folder: str) -> dict[str, bytes]:
    """The files below a folder of the store, as the S3 server has them."""
    variables = topology.environment("control-plane-2")
    files, root = url_to_fs(
        variables["FEWSTEP_STORE_URL"],
        endpoint_url=variables["AWS_ENDPOINT_URL_S3"],
        key="fewstep",
        secret=topology.secret("s3_secret"),
        use_listings_cache=False,
    )
    return {path: files.cat_file(path) for path in files.find(f"{root}/{folder}")}
