"""`fewstep projects`, `keys` and `audit`: who may use how much, with which key, and what was done with it."""

from typing import Annotated, Any

import typer

from api import render
from api.command import Json, fail, print_json, server
from api.render import console
from api.schemas import AuditView, ChainView, KeyView, NewKey, ProjectView
from service.status import Role

projects = typer.Typer(no_args_is_help=True, help="Projects and their limits.")
keys = typer.Typer(no_args_is_help=True, help="API keys.")
audit = typer.Typer(no_args_is_help=True, help="What was done with which key.")

Weight = Annotated[float | None, typer.Option(help="Share of the cluster beside the other projects'.")]
MaxJobs = Annotated[str | None, typer.Option(help="Jobs on the cluster at once; 'none' for no limit.")]
MaxGpus = Annotated[str | None, typer.Option(help="GPUs on the cluster at once; 'none' for no limit.")]
MaxGpuHours = Annotated[str | None, typer.Option(help="GPU-hours in any 30 days; 'none' for no limit.")]
MaxPriority = Annotated[int | None, typer.Option(help="Highest priority that its jobs may ask for.")]


@projects.command("list")
def projects_list(as_json: Json = False) -> None:
    """The projects that this key may see, with what they use now."""
    with server() as client:
        found = [ProjectView.model_validate(one) for one in client.pages("/v1/projects")]
        print_json(found) if as_json else console.print(render.projects_table(found))


@projects.command("create")
def projects_create(
    name: str,
    weight: Weight = None,
    max_jobs: MaxJobs = None,
    max_gpus: MaxGpus = None,
    max_gpu_hours: MaxGpuHours = None,
    max_priority: MaxPriority = None,
    as_json: Json = False,
) -> None:
    """Make a project; then give it a key with `fewstep keys create --project`."""
    body = {"name": name, **limits(weight, max_jobs, max_gpus, max_gpu_hours, max_priority)}
    with server() as client:
        made = ProjectView.model_validate(client.call("POST", "/v1/projects", json=body).json())
        print_json(made) if as_json else console.print(render.projects_table([made]))


@projects.command("set")
def projects_set(
    project: str,
    weight: Weight = None,
    max_jobs: MaxJobs = None,
    max_gpus: MaxGpus = None,
    max_gpu_hours: MaxGpuHours = None,
    max_priority: MaxPriority = None,
    as_json: Json = False,
) -> None:
    """Change a project's limits; what is not named stays as it is."""
    body = limits(weight, max_jobs, max_gpus, max_gpu_hours, max_priority)
    with server() as client:
        changed = ProjectView.model_validate(client.call("PATCH", f"/v1/projects/{project}", json=body).json())
        print_json(changed) if as_json else console.print(render.projects_table([changed]))


def limits(
    weight: float | None,
    max_jobs: str | None,
    max_gpus: str | None,
    max_gpu_hours: str | None,
    max_priority: int | None,
) -> dict[str, Any]:
    """The limits that were named, as the API takes them."""
    given: dict[str, Any] = {"weight": weight, "max_priority": max_priority}
    found = {name: value for name, value in given.items() if value is not None}
    for name, text in (("max_jobs", max_jobs), ("max_gpus", max_gpus), ("max_gpu_hours", max_gpu_hours)):
        if text is not None:
            found[name] = None if text == "none" else number(name, text)
    return found


def number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        fail(f"--{name.replace('_', '-')} takes a number or 'none', got {text!r}")


@keys.command("list")
def keys_list(
    project: Annotated[str | None, typer.Option(help="Only this project's.")] = None, as_json: Json = False
) -> None:
    """Keys by their first characters, with role, expiry and last use."""
    with server() as client:
        found = [KeyView.model_validate(one) for one in client.pages("/v1/keys", project=project)]
        print_json(found) if as_json else console.print(render.keys_table(found))


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Whose it is, or what uses it.")],
    role: Annotated[Role, typer.Option(help="What it may do.")] = Role.MEMBER,
    project: Annotated[str | None, typer.Option(help="Name or id; by default this key's own.")] = None,
    expires_in_days: Annotated[int | None, typer.Option(help="By default it never expires.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is printed now and never again."""
    body = {"name": name, "role": role.value, "project": project, "expires_in_days": expires_in_days}
    with server() as client:
        made = NewKey.model_validate(client.call("POST", "/v1/keys", json=body).json())
        if as_json:
            print_json(made)
        else:
            console.print(f"{made.id}  {made.role} of {made.project_id}", highlight=False)
            console.print(f"{made.key} (keep it: it is not shown again)", highlight=False, soft_wrap=True)


@keys.command("revoke")
def keys_revoke(key_id: str) -> None:
    """End a key."""
    with server() as client:
        client.call("DELETE", f"/v1/keys/{key_id}")
        console.print(f"{key_id} is revoked", highlight=False)


@audit.command("list")
def audit_list(
    target: Annotated[str | None, typer.Option(help="Only what was done to this id.")] = None,
    limit: Annotated[int, typer.Option(help="So many of the newest.", min=1, max=1000)] = 50,
    as_json: Json = False,
) -> None:
    """What was done, the newest first."""
    named = {} if target is None else {"target": target}
    with server() as client:
        page = client.call("GET", "/v1/audit", params={"limit": limit, **named}).json()
        found = [AuditView.model_validate(one) for one in page["data"]]
        print_json(found) if as_json else console.print(render.audit_table(found))


@audit.command("verify")
def audit_verify(
    head: Annotated[str | None, typer.Option(help="seq:sha256 of an earlier check, kept elsewhere.")] = None,
    as_json: Json = False,
) -> None:
    """Recompute the log's hash chain; exit code 1 when it is not as it was written."""
    with server() as client:
        params = {} if head is None else {"head": head}
        found = ChainView.model_validate(client.call("GET", "/v1/audit/verify", params=params, timeout=None).json())
        if as_json:
            print_json(found)
        else:
            console.print("intact" if found.intact else f"[red]broken[/] {found.problem}", highlight=False)
            console.print(f"head {found.seq}:{found.sha256} (keep it elsewhere)", highlight=False, soft_wrap=True)
    if not found.intact:
        raise typer.Exit(1)
