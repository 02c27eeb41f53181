"""A job whose networks are split between two workers, all parts real: stopped, and gone on with from both files."""

import time

import pytest

from api.client import Client
from service.status import Reason, Status

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPEC = {
    "teacher": "digits",
    "method": {"kind": "consistency", "iterations": 40, "batch_size": 16},
    "resources": {"workers": 2},
    "compute": {"strategy": "fsdp"},
    "checkpoint_every": 5,
    "preview_every": 20,
    "evaluation": {"samples": 100, "teacher_steps": 4},
}


def test_a_split_job_is_paused_and_resumed_to_its_end(platform) -> None:
    with Client(platform.url, platform.key) as client:
        job = client.submit(SPEC)
        while not client.metrics(job.id):
            assert client.job(job.id).status in (Status.QUEUED, Status.STARTING, Status.RUNNING)
            time.sleep(0.2)
        client.act(job.id, "pause")
        while client.job(job.id).status is not Status.PAUSED:
            time.sleep(0.2)
        steps = max(metric.step for metric in client.metrics(job.id))
        assert steps < 40
        checkpoint = max((platform.home / "store" / "jobs" / job.id / "run").glob("step-*"))
        files = {path.name: path.stat().st_size for path in checkpoint.glob("state*")}
        assert files.keys() == {"state.json", "state.safetensors", "state.1.safetensors"}
        assert files["state.1.safetensors"] > 0.8 * files["state.safetensors"]
        told = client.call("GET", f"/v1/jobs/{job.id}/checkpoints").json()["data"]
        assert sum(files.values()) in [found["bytes"] for found in told]

        client.act(job.id, "resume")
        job = client.wait(job.id, timeout=300)
        assert (job.status, job.reason) == (Status.SUCCEEDED, Reason.EXPORTED), job.detail
        assert [metric.step for metric in client.metrics(job.id)] == list(range(1, 41))
        assert any(f"Going on from {checkpoint.name}." in line.message for line in client.logs(job.id))
