"""A job that had to make room for a more urgent one ends as if it had never been interrupted."""

import os
import zipfile
from pathlib import Path

import pytest

from api.client import Client
from service.status import Reason, Status

STEPS = 100
SPEC = {
    "teacher": "digits",
    "method": {"kind": "consistency", "iterations": STEPS, "batch_size": 32},
    "checkpoint_every": 40,
    "preview_every": 1000,
    "evaluation": {"samples": 100, "teacher_steps": 4},
}
ALL_CPUS = max(4, os.cpu_count() or 1)
"""What the platform's Ray head says that it has."""

URGENT = SPEC | {
    "method": {"kind": "consistency", "iterations": 5, "batch_size": 16},
    "resources": {"cpus_per_worker": ALL_CPUS - 0.5},  # not beside another job
    "priority": 5,
}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_preempted_means_resumed(platform, unbroken_weights, tmp_path: Path) -> None:
    with Client(platform.url, platform.key) as client:
        job = client.submit(SPEC)
        for seen in client.watch(job.id, every=0.1):
            assert seen.status is not Status.FAILED, seen.detail
            if seen.step >= 20:
                break
        urgent = client.submit(URGENT)
        urgent = client.wait(urgent.id, timeout=400)
        assert urgent.status is Status.SUCCEEDED, urgent.detail
        job = client.wait(job.id, timeout=400)
        assert job.status is Status.SUCCEEDED, job.detail

        ends = [(attempt.reason, attempt.detail) for attempt in job.attempts]
        assert ends == [(Reason.PREEMPTED, None), (Reason.EXPORTED, None)], "it made room once, and came back once"
        first, second = job.attempts
        assert (job.losses, job.failures, job.preemptions) == (0, 0, 1), "which is charged to nothing"
        [urgent_attempt] = urgent.attempts
        assert first.ended_at <= urgent_attempt.created_at, "the urgent one ran in its place"
        assert urgent_attempt.ended_at <= second.created_at, "and it came back after that"

        moves = [event for event in client.events(job.id) if event.type == "status"]
        assert (Status.QUEUED, Reason.PREEMPTED) in [(move.status, move.reason) for move in moves]
        steps = [metric.step for metric in client.metrics(job.id)]
        assert steps == list(range(1, STEPS + 1)), "every metric step exactly once, in order"
        saved = [point["step"] for point in client.call("GET", f"/v1/jobs/{job.id}/checkpoints").json()["data"]]
        assert any(step % 40 and step != STEPS for step in saved), "it saved where it was stopped"

        [student] = client.students(job.id)
        archive = client.download(student.archive_url, tmp_path / "student.zip")
    with zipfile.ZipFile(archive) as zipped:
        weights = zipped.read("unet/diffusion_pytorch_model.safetensors")
    assert weights == unbroken_weights(SPEC, tmp_path)[student.steps[0]], "bit for bit those of an unbroken run"
