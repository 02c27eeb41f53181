"""The command line: `fewstep`. Speaks to the server at `FEWSTEP_URL` with `FEWSTEP_API_KEY`, or to the embedded one."""

import base64
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from api import cli_tenancy, cli_webhooks, render
from api.command import Json, fail, operator_settings, print_json, server
from api.render import console
from service.db import upgrade
from service.errors import StoreUnavailable
from service.settings import shown
from service.status import Status
from service.storage import Storage

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
jobs = typer.Typer(no_args_is_help=True, help="Submit and follow distillation jobs.")
students = typer.Typer(no_args_is_help=True, help="The students that jobs left.")
endpoints = typer.Typer(no_args_is_help=True, help="Hosted students.")
teachers = typer.Typer(no_args_is_help=True, help="Registered teachers.")
datasets = typer.Typer(no_args_is_help=True, help="Registered datasets.")
db = typer.Typer(no_args_is_help=True, help="The database.")
store = typer.Typer(no_args_is_help=True, help="The artifact store.")
for name, group in (
    ("jobs", jobs),
    ("students", students),
    ("endpoints", endpoints),
    ("teachers", teachers),
    ("datasets", datasets),
    ("db", db),
    ("store", store),
    ("webhooks", cli_webhooks.webhooks),
    ("projects", cli_tenancy.projects),
    ("keys", cli_tenancy.keys),
    ("audit", cli_tenancy.audit),
):
    app.add_typer(group, name=name)


@app.command()
def up() -> None:
    """Start Ray, the control plane and the dashboard on this machine; Ctrl-C stops them, nothing is lost."""
    os.execv(sys.executable, [sys.executable, "-m", "deploy.local"])


@app.command("settings")
def show_settings(as_json: Json = False) -> None:
    """Every setting as it is here and now, and where it comes from; secrets are starred."""
    found = list(shown(operator_settings()))
    print_json({"settings": [asdict(one) for one in found]}) if as_json else console.print(render.settings_table(found))


@db.command("upgrade")
def db_upgrade() -> None:
    """Bring the database's schema to this version."""
    upgrade(operator_settings())
    console.print("The database is up to date.")


@store.command("create")
def store_create() -> None:
    """Make the folder, or the bucket, that artifacts go to; one that exists is left as it is."""
    storage = Storage(operator_settings().resolved_store_url())
    try:
        storage.create()
    except StoreUnavailable as error:
        fail(error.detail)
    console.print(f"Artifacts go to {storage.url}.", highlight=False)


@app.command()
def methods(as_json: Json = False) -> None:
    """The distillation methods that this server knows."""
    with server() as client:
        found = client.methods()
        print_json(found) if as_json else console.print(render.methods_table(found))


def read_spec(
    file: Path | None, teacher: str, data: str | None, method: str | None, settings: list[str], name: str | None
) -> dict[str, Any]:
    """A spec from a YAML or JSON file, or from the options; `--set` changes the method's settings of either."""
    spec: dict[str, Any]
    if file is not None:
        try:
            content = yaml.safe_load(sys.stdin if str(file) == "-" else file.read_text())
        except (OSError, yaml.YAMLError) as error:
            fail(f"{file}: {error}")
        if not isinstance(content, dict):
            fail(f"{file}: a job spec is a mapping, such as 'teacher: digits'")
        spec = content
    elif method is None:
        fail("give a job file, or --method (see `fewstep methods`)")
    else:
        spec = {"teacher": teacher, "method": {"kind": method}}
    spec |= {key: value for key, value in (("name", name), ("data", data)) if value}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            fail(f"--set takes name=value, got {setting!r}")
        spec.setdefault("method", {})[key] = yaml.safe_load(value)
    return spec


@jobs.command("submit")
def jobs_submit(
    file: Annotated[Path | None, typer.Argument(help="YAML or JSON job spec; - reads standard input.")] = None,
    teacher: Annotated[str, typer.Option(help="Name of a registered teacher.")] = "digits",
    data: Annotated[str | None, typer.Option(help="Name of a registered dataset.")] = None,
    method: Annotated[str | None, typer.Option(help="Method of a job with one stage.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Method setting, as name=value.")] = None,
    name: Annotated[str | None, typer.Option(help="A name for the job and its students.")] = None,
    watch: Annotated[bool, typer.Option(help="Stay until the job is over.")] = False,
    as_json: Json = False,
) -> None:
    """Submit a job."""
    spec = read_spec(file, teacher, data, method, settings or [], name)
    with server() as client:
        job = client.submit(spec)
        if not watch:
            print_json(job) if as_json else console.print(f"{job.id}  {job.status}: {job.detail}", highlight=False)
    if watch:
        jobs_watch(job.id, as_json)


@jobs.command("validate")
def jobs_validate(
    file: Annotated[Path | None, typer.Argument(help="YAML or JSON job spec; - reads standard input.")] = None,
    teacher: Annotated[str, typer.Option(help="Name of a registered teacher.")] = "digits",
    data: Annotated[str | None, typer.Option(help="Name of a registered dataset.")] = None,
    method: Annotated[str | None, typer.Option(help="Method of a job with one stage.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Method setting, as name=value.")] = None,
    as_json: Json = False,
) -> None:
    """Check a job without submitting it: what it would need, and what to change where it does not fit."""
    spec = read_spec(file, teacher, data, method, settings or [], None)
    with server() as client:
        found = client.validate(spec)
        print_json(found) if as_json else console.print(render.validation_sheet(found))


@jobs.command("list")
def jobs_list(
    status: Annotated[Status | None, typer.Option(help="Only jobs in this state.")] = None, as_json: Json = False
) -> None:
    """Jobs, the newest first."""
    with server() as client:
        found = list(client.jobs(status))
        print_json(found) if as_json else console.print(render.jobs_table(found))


@jobs.command("show")
def jobs_show(job_id: str, as_json: Json = False) -> None:
    """One job: its state and why, progress, attempts, students."""
    with server() as client:
        job = client.job(job_id)
        print_json(job) if as_json else console.print(render.job_sheet(job))


@jobs.command("watch")
def jobs_watch(job_id: str, as_json: Json = False) -> None:
    """Follow a job's progress until it is over; exit code 1 when it did not succeed."""
    with server() as client:
        if as_json:
            job = client.wait(job_id)
            print_json(job)
        else:
            with render.job_progress() as progress:
                task = progress.add_task(job_id, total=None, status="", eta="")
                for job in client.watch(job_id):
                    render.show(progress, task, job)
            console.print(f"{render.coloured(job.status)}  {job.detail}")
            if job.students:
                console.print(render.students_table(client.students(job_id)))
    if job.status is not Status.SUCCEEDED:
        raise typer.Exit(1)


@jobs.command("logs")
def jobs_logs(job_id: str, as_json: Json = False) -> None:
    """A job's log lines so far."""
    with server() as client:
        for line in client.logs(job_id):
            if as_json:
                print_json(line)
            else:
                console.print(f"{line.at:%H:%M:%S} {line.level:<7} {line.message}", highlight=False, markup=False)


def job_action(action: str, says: str) -> None:
    """Register `fewstep jobs <action>`."""

    @jobs.command(action, help=says)
    def act(job_id: str, as_json: Json = False) -> None:
        with server() as client:
            job = client.act(job_id, action)
            print_json(job) if as_json else console.print(f"{job.id}  {job.status}: {job.detail}", highlight=False)


job_action("cancel", "Stop a job at its next step; its checkpoint is kept.")
job_action("pause", "Stop a job at its next step, to be resumed.")
job_action("resume", "Go on with a paused job.")
job_action("retry", "Go on with a failed or cancelled job from its last checkpoint.")


@teachers.command("list")
def teachers_list(as_json: Json = False) -> None:
    """Registered teachers."""
    with server() as client:
        found = list(client.teachers())
        print_json(found) if as_json else console.print(render.teachers_table(found))


@teachers.command("register")
def teachers_register(name: str, source: str, as_json: Json = False) -> None:
    """Register a diffusers folder by its path inside the artifact store."""
    with server() as client:
        teacher = client.register_teacher(name, source)
        print_json(teacher) if as_json else console.print(render.teachers_table([teacher]))


@datasets.command("list")
def datasets_list(as_json: Json = False) -> None:
    """Registered datasets."""
    with server() as client:
        found = list(client.datasets())
        print_json(found) if as_json else console.print(render.datasets_table(found))


@datasets.command("add")
def datasets_add(name: str, source: str, as_json: Json = False) -> None:
    """Register images, tars, rows or prompts: a path inside the artifact store, or hf://datasets/org/name@revision."""
    with server() as client:
        dataset = client.register_dataset(name, source)
        print_json(dataset) if as_json else console.print(render.datasets_table([dataset]))


@students.command("list")
def students_list(
    job: Annotated[str | None, typer.Option(help="Only this job's students.")] = None, as_json: Json = False
) -> None:
    """Students, with their Fréchet distance beside the teacher's."""
    with server() as client:
        found = list(client.students(job))
        print_json(found) if as_json else console.print(render.students_table(found))


@students.command("show")
def students_show(student: str, as_json: Json = False) -> None:
    """One student's figures beside its teacher's."""
    with server() as client:
        found = client.student(student)
        if as_json:
            print_json(found)
        else:
            console.print(f"[bold]{found.name}[/]  {found.id}  {found.parameters:,} parameters, from {found.job_id}")
            console.print(render.figures_table(found))


@students.command("download")
def students_download(student: str, target: Annotated[Path | None, typer.Argument()] = None) -> None:
    """Download a student's diffusers folder as a zip archive."""
    with server() as client:
        found = client.student(student)
        target = client.download(found.archive_url, target or Path(f"{found.name}.zip"))
        console.print(f"{target}  {target.stat().st_size:,} bytes", highlight=False)


@endpoints.command("create")
def endpoints_create(
    name: str,
    student: Annotated[str, typer.Option(help="Id or name of a student.")],
    wait: Annotated[bool, typer.Option(help="Stay until it answers.")] = True,
    as_json: Json = False,
) -> None:
    """Host a student; its teacher answers as <name>:teacher."""
    with server() as client:
        endpoint = client.create_endpoint(name, student)
        if wait:
            with console.status("starting the endpoint"):
                endpoint = client.wait_endpoint(name)
        print_json(endpoint) if as_json else console.print(render.endpoints_table([endpoint]))
    if endpoint.status == "failed":
        fail(endpoint.detail)


@endpoints.command("list")
def endpoints_list(as_json: Json = False) -> None:
    """Hosted students."""
    with server() as client:
        found = list(client.endpoints())
        print_json(found) if as_json else console.print(render.endpoints_table(found))


@endpoints.command("delete")
def endpoints_delete(name: str) -> None:
    """Stop hosting a student; the student stays."""
    with server() as client:
        client.delete_endpoint(name)
        console.print(f"{name} is being deleted")


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help="An endpoint's name.")],
    prompt: Annotated[str, typer.Option(help="Prompt, or the class.")] = "",
    class_label: Annotated[int | None, typer.Option("--class", help="Class of all images.")] = None,
    n: Annotated[int, typer.Option(help="Number of images.")] = 1,
    steps: Annotated[int | None, typer.Option(help="Sampling steps, one of the student's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Image i uses seed + i.")] = None,
    out: Annotated[Path, typer.Option(help="Target; image i > 0 gets -i before the suffix.")] = Path("image.png"),
) -> None:
    """Draw images from an endpoint into PNG files."""
    request = {"prompt": prompt, "class_label": class_label, "n": n, "num_inference_steps": steps, "seed": seed}
    with server() as client:
        answer = client.generate(model, **{key: value for key, value in request.items() if value is not None})
    for i, image in enumerate(answer.data):
        path = out if i == 0 else out.with_stem(f"{out.stem}-{i}")
        path.write_bytes(base64.b64decode(image.b64_json))
        console.print(f"{path}  seed {image.seed}, {answer.num_inference_steps} steps", highlight=False)
