"""What the platform costs a job: its steps against a bare loop's, and its start against a plain Ray job's.

Bare loop, plain Ray job and Fewstep job run the same spec in turn, twice, on one running platform. A step's time is the
median over the run; a start is from the submission to the end of the first step, the better of the two.
"""

import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from running import platform

from api.client import Client

BARE = Path(__file__).parent / "bare.py"
SPEC = {
    "teacher": "digits",
    "method": {"kind": "consistency", "iterations": 300},
    "checkpoint_every": 100_000,
    "preview_every": 100_000,
    "evaluation": {"samples": 100, "teacher_steps": 4},
}
ROUNDS = 2


def step_time(times: list[float]) -> float:
    """Median seconds of a step, the first ones left out."""
    return median(b - a for a, b in pairwise(times[20:]))


def bare_loop(spec: Path, out: Path) -> list[float]:
    subprocess.run([sys.executable, BARE, spec, out], check=True)
    times: list[float] = json.loads(out.read_text())
    return times


def plain_ray_job(state: dict[str, Any], spec: Path, out: Path, name: str) -> tuple[float, list[float]]:
    """`ray job submit` without the CLI's own start."""
    token = (Path(state["api_key_file"]).parent / "ray_token").read_text()
    submitted = time.time()
    httpx.post(
        f"{state['ray_url']}/api/jobs/",
        json={"entrypoint": f"exec python {BARE} {spec} {out}", "submission_id": name},
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    ).raise_for_status()
    while not out.exists():
        time.sleep(0.1)
    times: list[float] = json.loads(out.read_text())
    return times[0] - submitted, times


def fewstep_job(client: Client) -> tuple[float, list[float]]:
    submitted = time.time()
    job = client.wait(client.submit(SPEC).id)
    assert job.status == "succeeded", job.detail
    times = [metric.at.timestamp() for metric in client.metrics(job.id)]
    return times[0] - submitted, times


def main() -> None:
    bare: list[float] = []
    plain: list[tuple[float, list[float]]] = []
    fewstep: list[tuple[float, list[float]]] = []
    with tempfile.TemporaryDirectory() as folder, platform() as state:
        spec = Path(folder) / "spec.json"
        spec.write_text(json.dumps(SPEC))
        with Client(state["url"], Path(state["api_key_file"]).read_text().strip()) as client:
            for i in range(ROUNDS):
                bare.append(step_time(bare_loop(spec, Path(folder) / f"bare-{i}.json")))
                plain.append(plain_ray_job(state, spec, Path(folder) / f"plain-{i}.json", f"plain-{i}"))
                fewstep.append(fewstep_job(client))
    step, bare_step = min(step_time(times) for _, times in fewstep), min(bare)
    start, plain_start = min(start for start, _ in fewstep), min(start for start, _ in plain)
    print("What the platform costs a job   Fewstep    without    ratio   bar")
    print(f"step, ms                     {1e3 * step:10.2f} {1e3 * bare_step:10.2f} {step / bare_step:8.3f}   ≤ 1.05")
    print(f"submit → first step, s       {start:10.1f} {plain_start:10.1f} {start / plain_start:8.2f}")


if __name__ == "__main__":
    main()
