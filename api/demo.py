"""`make demo`: every method on the digits teacher, through the whole platform, to a picture and an endpoint."""

import base64
import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from api.client import Client, ServerError
from api.render import accuracy, console, job_progress, show, table
from api.schemas import JobView, StudentView
from service.settings import Settings
from service.status import TERMINAL, Status

OUT = Path("demo")
TEACHER_STEPS = 50
JOBS: dict[str, dict[str, Any]] = {
    "progressive": {"kind": "progressive"},
    "dmd2": {"kind": "dmd2"},
    "dmd2-few": {"kind": "dmd2", "steps": 4},
    "consistency": {"kind": "consistency"},
}


@dataclass(frozen=True)
class Row:
    """One student at one step count."""

    name: str
    student: StudentView
    steps: int
    folder: Path


@contextmanager
def platform(settings: Settings) -> Iterator[None]:
    """The platform of this home: the one that runs, or one that is started here and stopped at the end."""
    state = settings.resolved_home() / "up.json"
    if state.exists():
        with Client() as client:
            try:
                client.call("GET", "/readyz")
            except ServerError:
                pass
            else:
                console.print(f"Using the platform that runs at {client.url}")
                yield
                return
    process = subprocess.Popen([sys.executable, "-m", "deploy.local"])
    try:
        started = time.monotonic()
        while True:
            if process.poll() is not None:
                raise SystemExit("the platform did not start; the lines above say why")
            if state.exists() and json.loads(state.read_text())["pid"] == process.pid:
                break
            if time.monotonic() - started > 180:
                raise SystemExit("the platform was not ready within 3 minutes")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def distil(client: Client) -> dict[str, JobView]:
    """Submit all jobs at once and follow them to their ends."""
    jobs = {name: client.submit({"teacher": "digits", "method": method}) for name, method in JOBS.items()}
    with job_progress() as progress:
        tasks = {name: progress.add_task(name, total=job.total_steps, status="", eta="") for name, job in jobs.items()}
        while True:
            jobs = {name: job if job.status in TERMINAL else client.job(job.id) for name, job in jobs.items()}
            for name, job in jobs.items():
                show(progress, tasks[name], job)
            if all(job.status in TERMINAL for job in jobs.values()):
                break
            time.sleep(0.5)
    for name, job in jobs.items():
        if job.status is not Status.SUCCEEDED:
            raise SystemExit(f"job {name} ({job.id}) ended as {job.status}: {job.detail}")
    return jobs


def collect(client: Client, jobs: dict[str, JobView]) -> list[Row]:
    """Download every student and unpack it once per step count, as `demo/students/<method>-<steps>/`."""
    rows = []
    for job in jobs.values():
        for student in sorted(client.students(job.id), key=lambda s: s.steps[0]):
            archive = client.download(student.archive_url, OUT / "student.zip")
            for steps in student.steps:
                name = f"{student.method}-{steps}"
                folder = OUT / "students" / name
                with zipfile.ZipFile(archive) as zipped:
                    zipped.extractall(folder)
                rows.append(Row(name, student, steps, folder))
            archive.unlink()
    return sorted(rows, key=lambda row: (row.student.method, -row.steps))


def print_table(rows: list[Row]) -> None:
    out = table("WHO", "STEPS", "FRÉCHET", "RATIO", "ACCURACY", "RECALL", "DIVERSITY", "MS/IMAGE", "TRAINED")
    out.collapse_padding = True
    teacher = {steps: figures for row in rows for steps, figures in row.student.teacher_figures.items()}
    reference = teacher[TEACHER_STEPS].frechet
    entries = [("teacher", steps, teacher[steps], "") for steps in sorted(teacher, reverse=True)]
    entries += [
        (row.student.method, row.steps, row.student.figures[row.steps], f"{row.student.training_seconds:.0f} s")
        for row in rows
    ]
    for who, steps, f, trained in entries:
        numbers = (f"{f.frechet:.2f}", f"{f.frechet / reference:.2f}", accuracy(f), f"{f.recall:.2f}")
        out.add_row(who, str(steps), *numbers, f"{f.diversity:.2f}", f"{f.ms_per_image:.2f}", trained)
    console.print(out)
    console.print("RATIO is the Fréchet distance over the teacher's at 50 steps; TRAINED is the training so far.")


def draw_grid(rows: list[Row]) -> None:
    """`demo/grid.png`: the teacher's rows above the students', all from the same seeds."""
    arguments = [f"builtin:digits:{steps}" for steps in (TEACHER_STEPS, 4, 2, 1)]
    arguments += [f"{row.folder}:{row.steps}" for row in rows]
    subprocess.run([sys.executable, "-m", "workers.compare", "--out", OUT / "grid.png", *arguments], check=True)


def serve(client: Client, student: StudentView) -> None:
    """Deploy a student and fetch a picture with the openai client."""
    if any(endpoint.name == "demo" for endpoint in client.endpoints()):
        client.delete_endpoint("demo")
        while any(endpoint.name == "demo" for endpoint in client.endpoints()):
            time.sleep(0.5)
    client.create_endpoint("demo", student.id)
    with console.status("starting the endpoint"):
        endpoint = client.wait_endpoint("demo")
    if endpoint.status != "ready":
        raise SystemExit(f"the endpoint did not start: {endpoint.detail}")
    with openai.OpenAI(base_url=endpoint.url, api_key=client.key) as images:
        answer = images.images.generate(model="demo", prompt="7", n=1, extra_body={"seed": 7})
    (OUT / "endpoint.png").write_bytes(base64.b64decode((answer.data or [])[0].b64_json or ""))


def main() -> None:
    started = time.monotonic()
    settings = Settings()
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "students").mkdir(parents=True)
    with platform(settings), Client() as client:
        rows = collect(client, distil(client))
        draw_grid(rows)
        serve(client, next(row.student for row in rows if row.name == "progressive-1"))
        print_table(rows)
    console.print(f"\n{OUT}/grid.png       teacher rows above student rows, same seeds")
    console.print(f"{OUT}/endpoint.png   a 7 from the endpoint, fetched with the openai client")
    console.print(f"{OUT}/students/      the students, plain diffusers folders")
    url = f"{settings.resolved_public_url()}/#key={settings.api_key_file().read_text().strip()}"
    console.print(
        f"\nDone in {time.monotonic() - started:.0f} s. For the dashboard run [bold]make up[/] and open {url}"
    )


if __name__ == "__main__":
    main()
