"""SIGKILL a training worker, then the driver, then the control plane, each in the middle of one running job."""

import os
import signal
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.client import Client, ServerError
from api.schemas import JobView
from service.spec import JobSpec
from service.status import TERMINAL, Status

METHODS: dict[str, dict[str, Any]] = {
    "progressive": {"kind": "progressive", "first_steps": 2, "rung_iterations": 150, "batch_size": 32},
    "consistency": {"kind": "consistency", "iterations": 300, "batch_size": 32},
    "dmd2": {"kind": "dmd2", "iterations": 150, "gan_weight": 0.003, "batch_size": 32},
}


def processes_of(attempt: str, title: str) -> list[psutil.Process]:
    """Live processes of one attempt whose command line contains `title`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FEWSTEP_ATTEMPT_ID") == attempt and title in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def patient_job(client: Client, job_id: str) -> JobView | None:
    """The job, or None while the control plane is away."""
    try:
        return client.job(job_id)
    except ServerError as error:
        if error.status not in (0, 503):
            raise
        return None


def wait_for_step(client: Client, job_id: str, step: int, timeout: float = 400) -> JobView:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        job = patient_job(client, job_id)
        if job is not None:
            assert job.status not in TERMINAL, f"the job ended too early: {job.status}, {job.detail}"
            if job.step >= step:
                return job
        time.sleep(0.1)
    raise AssertionError(f"{job_id} did not reach step {step} within {timeout} s: {job}")


def kill_one(processes: list[psutil.Process]) -> None:
    assert processes, "nothing to kill"
    os.kill(processes[0].pid, signal.SIGKILL)


def kill_thrice(platform, method: str, unbroken_weights, folder: Path) -> None:
    """One job's whole life under fire."""
    spec = {
        "teacher": "digits",
        "method": METHODS[method],
        "checkpoint_every": 20,
        "preview_every": 1000,
        "evaluation": {"samples": 100, "teacher_steps": 4},
    }
    total = JobSpec.model_validate(spec).total_steps()
    with Client(platform.url, platform.key) as client:
        job = client.submit(spec)

        job = wait_for_step(client, job.id, total // 6)
        kill_one(processes_of(job.attempts[-1].id, "RayTrainWorker"))

        job = wait_for_step(client, job.id, total // 3)
        kill_one(processes_of(job.attempts[-1].id, "workers.driver"))

        wait_for_step(client, job.id, total // 2)
        os.kill(platform.pids["control-plane"], signal.SIGKILL)

        job = client.wait(job.id, timeout=400)
        assert job.status is Status.SUCCEEDED, job.detail
        assert len(job.attempts) >= 2, "the driver's death must have cost an attempt"

        steps = [metric.step for metric in client.metrics(job.id)]
        assert steps == list(range(1, total + 1)), "every metric step exactly once, in order"

        expected = unbroken_weights(spec, folder)
        for student in client.students(job.id):
            archive = client.download(student.archive_url, folder / f"{student.name}.zip")
            with zipfile.ZipFile(archive) as zipped:
                weights = zipped.read("unet/diffusion_pytorch_model.safetensors")
            assert weights == expected.pop(student.steps[0]), "bit for bit those of an unbroken run"
        assert not expected, "as many students as an unbroken run leaves"


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize("methods", [["dmd2"], pytest.param(list(METHODS), marks=pytest.mark.slow, id="all")])
def test_killed_means_resumed(platform, unbroken_weights, methods: list[str], tmp_path: Path) -> None:
    """Several at once: each job's blows hit the others' control plane too."""
    with ThreadPoolExecutor() as pool:
        runs = {}
        for method in methods:
            (tmp_path / method).mkdir()
            runs[method] = pool.submit(kill_thrice, platform, method, unbroken_weights, tmp_path / method)
        failures = {method: error for method, run in runs.items() if (error := run.exception()) is not None}
    assert not failures, failures
