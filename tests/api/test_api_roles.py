"""Every route of the OpenAPI document with every kind of key, answered as the route's role says."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import httpx
import pytest
from api_fixtures import SPEC, Server
from fake_driver import script
from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from sqlalchemy import select

from api.deps import Member, Viewer, anyone, authenticate, role_of
from service.auth import Caller
from service.projects import DEFAULT
from service.tables import ApiKey, Dataset, Endpoint, Job, Student, Teacher, Webhook

Files = Callable[..., dict[str, bytes]]

ROLES = ["none", "attempt", "viewer", "member", "admin"]
NOT_AUDITED = {"validate_job", "report", "generate_images"}
"""They store nothing, or nothing of a user's."""
EVERYBODYS = {"list_methods", "get_method", "validate_job"}
"""They know nothing of any project."""
IMAGE = {"created": 1, "data": [], "model": "fast", "num_inference_steps": 4, "duration_ms": 1}
MODEL = {
    "id": "fast",
    "object": "model",
    "created": 1,
    "owned_by": "fewstep",
    "steps": [4],
    "num_classes": 10,
    "text": False,
}


def gateway(request: httpx.Request) -> httpx.Response:
    listed = {"object": "list", "data": [{**MODEL, "image_size": [1, 8, 8]}]}
    return httpx.Response(200, json=listed if request.method == "GET" else IMAGE)


class Seeds:
    """Real things of the default project for a route's path and body; those that a route may end, anew each time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.numbers = itertools.count()
        self.job = self.sample = self.attempt = ""
        self.kept: dict[str, str] = {}

    async def plant(self, teacher_files: Files) -> None:
        server = self.server
        self.job = (await server.submit(name="mine"))["id"]
        await server.tick()
        async with await server.attempt(self.job) as driver:
            body = [{"seq": i, "at": 1e9 + i, **one} for i, one in enumerate(script(f"jobs/{self.job}"), 1)]
            await driver.post("/reports", json={"observations": body})
            self.attempt = str(driver.base_url).rstrip("/").rsplit("/", 1)[1]
        for one in body:
            for key in ("path", "grid"):
                if str(one.get(key, "")).endswith(".png"):
                    server.write(one[key], b"\x89PNG\r\n\x1a\n")
        await server.tick()
        server.write(f"jobs/{self.job}/students/progressive-4/model_index.json", b"{}")
        for path, content in teacher_files().items():
            server.write(f"teachers/mine/{path}", content)
        (sample, *_) = (await server.http.get(f"/v1/jobs/{self.job}/samples")).json()["data"]
        self.sample = sample["id"]
        await self.made("/v1/teachers", name="mine", source="teachers/mine")
        self.server.write("data/mine/a.png", b"not decoded")
        await self.made("/v1/datasets", name="mine", source="data/mine")
        await self.made("/v1/endpoints", name="fast", student="mine-progressive-4")

    async def made(self, path: str, **body: Any) -> str:
        answer = await self.server.http.post(path, json=body)
        assert answer.status_code in (201, 202), answer.text
        return str(answer.json()["id"])

    async def path(self, verb: str, template: str) -> str:
        """The path with the name of a real thing in the place of each parameter."""
        endpoint = f"end-{next(self.numbers)}"
        fixed: dict[str, str] = {
            "job_id": self.job,
            "sample_id": self.sample,
            "attempt_id": self.attempt,
            "kind": "dmd2",
            "teacher": "mine",
            "dataset": "mine",
            "student": "mine-progressive-4",
            "project": "default",
        }
        fresh: dict[str, Callable[[], Awaitable[str]]] = {
            "endpoint": lambda: self.made("/v1/endpoints", name=endpoint, student="mine-progressive-4"),
            "key_id": lambda: self.made("/v1/keys", name="spare", role="viewer"),
            "webhook_id": lambda: self.made("/v1/webhooks", url="https://93.184.215.14/hook"),
        }
        for name, value in fixed.items():
            template = template.replace(f"{{{name}}}", value)
        for name, make in fresh.items():
            if f"{{{name}}}" in template:
                if verb == "DELETE" or name not in self.kept:
                    self.kept[name] = await make()
                template = template.replace(f"{{{name}}}", self.kept[name])
        if "{delivery_id}" in template:
            webhook = template.split("/deliveries")[0]
            delivery = (await self.server.http.post(f"{webhook}/test")).json()["id"]
            template = template.replace("{delivery_id}", delivery)
        assert "{" not in template, f"{template}: say here how such a thing is made"
        return template

    def body(self, operation: str) -> dict[str, Any] | None:
        """A body that the route accepts."""
        new = f"new-{next(self.numbers)}"
        bodies: dict[str, dict[str, Any]] = {
            "submit_job": SPEC,
            "validate_job": SPEC,
            "report": {"observations": []},
            "register_teacher": {"name": new, "source": "teachers/mine"},
            "register_dataset": {"name": new, "source": "data/mine"},
            "create_endpoint": {"name": new, "student": "mine-progressive-4"},
            "generate_images": {"model": "fast"},
            "create_project": {"name": new},
            "change_project": {"max_priority": 10},
            "create_key": {"name": new, "role": "viewer"},
            "create_webhook": {"url": "https://93.184.215.14/hook"},
        }
        return bodies.get(operation)


async def key(server: Server, role: str, project: str) -> dict[str, str]:
    body = {"name": f"{role}-{project}", "role": role, "project": project}
    return {"Authorization": f"Bearer {(await server.http.post('/v1/keys', json=body)).json()['key']}"}


def operations(server: Server) -> list[tuple[str, str, dict[str, Any]]]:
    paths = server.app.openapi()["paths"]
    found = [(verb.upper(), path, one) for path, verbs in paths.items() for verb, one in verbs.items()]
    return sorted(found, key=lambda entry: entry[0] == "DELETE")  # what is kept for the others is ended last


async def test_every_route_answers_every_key_as_its_role_says(server: Server, teacher_files: Files) -> None:
    server.app.state.gateway = httpx.AsyncClient(transport=httpx.MockTransport(gateway), base_url="http://gateway")
    seeds = Seeds(server)
    await seeds.plant(teacher_files)
    await seeds.made("/v1/projects", name="other")
    callers: dict[str, dict[str, str]] = {
        "nobody": {},
        "wrong": {"Authorization": "Bearer fsk_wrong"},
        "stranger": await key(server, "member", "other"),
        "viewer": await key(server, "viewer", "default"),
        "member": await key(server, "member", "default"),
        "admin": await key(server, "admin", "default"),
    }
    callers["intruder"] = {**callers["stranger"], "Fewstep-Project": "default"}
    callers["visiting admin"] = {**await key(server, "admin", "other"), "Fewstep-Project": "default"}
    del server.http.headers["authorization"]
    admin = callers["admin"]

    for (verb, template, operation), (name, headers) in itertools.product(operations(server), callers.items()):
        role, called = operation["x-role"], operation["operationId"]
        assert role in ROLES, f"{verb} {template} does not say who may ask it: take Viewer, Member or Admin"
        server.http.headers.update(admin)
        path, body = await seeds.path(verb, template), seeds.body(called)
        before = await server.rows()
        del server.http.headers["authorization"]
        if called == "create_endpoint" and name == "stranger":
            expected = {422}  # the student that its body names is not there, for this key
        else:
            expected = _expected(role, called, name, template)
        answer = await server.http.request(verb, path, json=body, headers=headers)
        who = f"{name}: {verb} {path}: {answer.text[:300]}"
        assert answer.status_code in expected, who
        assert str(answer.status_code) in operation["responses"], f"not declared: {who}"
        after = await server.rows()
        if answer.status_code >= 400:
            assert after == before, who
        elif verb != "GET":
            written = after["audit_log"] - before["audit_log"]
            assert written == (0 if called in NOT_AUDITED else 1), f"audit log: {who}"
        if name == "stranger" and verb == "GET" and answer.status_code == 200 and called not in EVERYBODYS:
            assert await _leaks(server, answer) == [], who


def _expected(role: str, called: str, name: str, template: str) -> set[int]:
    """The statuses that this route may answer to this caller."""
    done = {200, 201, 202, 409}  # 409: it was let in, and the thing's state does not allow it
    if role == "none":
        return {200}
    if role == "attempt" or name in ("nobody", "wrong"):
        return {401}  # no user's key is an attempt's token
    if name == "intruder":
        return {403}
    if name == "stranger" and role != "admin":
        hidden = ("{" in template and called not in EVERYBODYS) or called == "generate_images"
        return {404} if hidden else done
    holds = {"stranger": "member", "visiting admin": "admin"}.get(name, name)
    return done if ROLES.index(holds) >= ROLES.index(role) else {403}


async def _leaks(server: Server, answer: httpx.Response) -> list[str]:
    """What a stranger's answer tells of the default project: ids of its rows, and names of its endpoints."""
    tables = (Job, Student, Endpoint, Webhook, Teacher, Dataset, ApiKey)
    ids = [DEFAULT]
    async with server.behind.db.read() as session:
        for table in tables:
            ids += (await session.scalars(select(table.id).where(table.project_id == DEFAULT))).all()
        ids += (await session.scalars(select(Endpoint.name).where(Endpoint.project_id == DEFAULT))).all()
    return [one for one in ids if f'"{one}"' in answer.text]


def test_a_route_without_a_role_is_noticed() -> None:
    router = APIRouter()

    @router.get("/forgotten")
    async def forgotten(caller: Annotated[Caller, Depends(authenticate)]) -> None: ...

    @router.get("/bare")
    async def bare() -> None: ...

    @router.get("/open", dependencies=[Depends(anyone)])
    async def declared_open() -> None: ...

    @router.get("/both")
    async def both(reader: Viewer, writer: Member) -> None: ...

    roles = {route.name: role_of(route) for route in router.routes if isinstance(route, APIRoute)}
    assert roles == {"forgotten": None, "bare": None, "declared_open": "none", "both": "member"}


@pytest.mark.parametrize("role", ["viewer", "member"])
async def test_a_role_is_not_overcome_by_its_own_key(server: Server, role: str) -> None:
    """No key below an admin's makes itself a better one."""
    own = await key(server, role, "default")
    mine = next(one for one in (await server.http.get("/v1/keys")).json()["data"] if one["role"] == role)
    server.http.headers.update(own)
    for answer in (
        await server.http.post("/v1/keys", json={"name": "better", "role": "admin"}),
        await server.http.patch("/v1/projects/default", json={"max_gpus": None}),
        await server.http.delete(f"/v1/keys/{mine['id']}"),
    ):
        assert answer.status_code == 403, answer.text
