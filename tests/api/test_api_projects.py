"""Projects, keys, acting in another project, the audit log, and creates under one Idempotency-Key."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from api_fixtures import SPEC, Server
from sqlalchemy import select, update

from api.schemas import ChainView, KeyView, NewKey, ProjectView
from service import auth
from service.housekeeping import Housekeeping
from service.projects import DEFAULT
from service.tables import ApiKey, IdempotentRequest


async def post(server: Server, path: str, status: int = 201, **body: Any) -> dict[str, Any]:
    answer = await server.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def bearer(key: dict[str, Any] | str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key if isinstance(key, str) else key['key']}"}


async def test_projects_are_made_changed_and_measured(server: Server) -> None:
    made = ProjectView.model_validate(await post(server, "/v1/projects", name="vision", max_gpus=8))
    assert (made.max_gpus, made.max_jobs, made.weight, made.in_use.queued) == (8, None, 1, 0)
    assert "already" in (await post(server, "/v1/projects", 409, name="vision"))["detail"]
    await server.submit()
    found = (await server.http.get("/v1/projects")).json()["data"]
    assert [(one["name"], one["in_use"]["queued"]) for one in found] == [("vision", 0), ("default", 1)]
    await server.tick()
    default = (await server.http.get("/v1/projects/default")).json()
    assert (default["id"], default["in_use"]) == (DEFAULT, {"queued": 0, "active": 1, "gpus": 0})
    changed = await server.http.patch("/v1/projects/vision", json={"max_gpus": None, "max_jobs": 3})
    assert (changed.json()["max_gpus"], changed.json()["max_jobs"], changed.json()["weight"]) == (None, 3, 1)
    wrong = await server.http.patch("/v1/projects/vision", json={"weight": 0})
    assert wrong.json()["errors"][0]["pointer"] == "/weight"
    assert (await server.http.patch("/v1/projects/nope", json={})).status_code == 404


async def test_a_key_is_told_once_and_good_for_its_project(server: Server) -> None:
    project = await post(server, "/v1/projects", name="vision")
    made = NewKey.model_validate(await post(server, "/v1/keys", name="ann", role="member", project="vision"))
    assert made.key is not None
    assert (made.project_id, made.role, made.key[:8]) == (project["id"], "member", made.prefix)
    listed = [KeyView.model_validate(one) for one in (await server.http.get("/v1/keys?project=vision")).json()["data"]]
    assert listed == [KeyView.model_validate(made.model_dump(exclude={"key"}))]
    async with server.behind.db.read() as session:
        row = await session.get(ApiKey, made.id)
        assert made.key not in str(vars(row))
    job = (await server.http.post("/v1/jobs", json=SPEC, headers=bearer(made.key))).json()
    assert (await server.http.get(f"/v1/jobs/{job['id']}")).status_code == 404  # the admin acts in its own project
    there = {"Fewstep-Project": "vision"}
    assert (await server.http.get(f"/v1/jobs/{job['id']}", headers=there)).status_code == 200
    assert (await server.http.get("/v1/jobs", headers={"Fewstep-Project": project["id"]})).json()["data"] != []
    assert (await server.http.get("/v1/jobs", headers={"Fewstep-Project": "nope"})).status_code == 404
    for name, status in (("vision", 200), (project["id"], 200), ("default", 403), ("nope", 403)):
        answer = await server.http.get("/v1/jobs", headers={**bearer(made.key), "Fewstep-Project": name})
        assert answer.status_code == status, name
    unknown = await post(server, "/v1/keys", 422, name="bob", role="viewer", project="nope")
    assert unknown["errors"][0]["pointer"] == "/project"


async def test_a_key_is_over_at_once_when_revoked_and_in_time_when_it_expires(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = (await server.http.get("/v1/keys")).json()["data"][0]
    assert "last admin key" in (await server.http.delete(f"/v1/keys/{first['id']}")).json()["detail"]
    short = await post(server, "/v1/keys", name="short", role="admin", expires_in_days=2)
    assert (await server.http.delete(f"/v1/keys/{first['id']}")).status_code == 409  # the other one will expire
    other = await post(server, "/v1/keys", name="other", role="admin")
    assert (await server.http.delete(f"/v1/keys/{first['id']}")).json()["revoked_at"] is not None
    assert (await server.http.get("/v1/jobs")).status_code == 401
    for key in (short, other):
        assert (await server.http.get("/v1/jobs", headers=bearer(key))).status_code == 200
    now = server.behind.db.now

    async def later(session: Any) -> Any:
        return await now(session) + timedelta(days=2, seconds=1)

    monkeypatch.setattr(server.behind.db, "now", later)
    server.behind.keyring.forget()
    assert (await server.http.get("/v1/jobs", headers=bearer(short))).status_code == 401
    assert (await server.http.get("/v1/jobs", headers=bearer(other))).status_code == 200
    assert (await server.http.delete("/v1/keys/key_x", headers=bearer(other))).status_code == 404


async def test_two_admins_cannot_revoke_each_other(server: Server) -> None:
    first = (await server.http.get("/v1/keys")).json()["data"][0]
    other = await post(server, "/v1/keys", name="other", role="admin")
    answers = await asyncio.gather(
        server.http.delete(f"/v1/keys/{other['id']}"),
        server.http.delete(f"/v1/keys/{first['id']}", headers=bearer(other)),
    )
    assert sorted(answer.status_code for answer in answers) in ([200, 401], [200, 409])


async def test_the_last_use_is_noted_once_a_minute(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def last_used() -> Any:
        async with server.behind.db.read() as session:
            return await session.scalar(select(ApiKey.last_used_at))

    assert await last_used() is None
    await server.http.get("/v1/jobs")
    noted = await last_used()
    assert noted is not None
    writes = 0
    write = server.behind.db.write

    def counted() -> Any:
        nonlocal writes
        writes += 1
        return write()

    monkeypatch.setattr(server.behind.db, "write", counted)
    for _ in range(5):
        server.behind.keyring.forget()
        await server.http.get("/v1/jobs")
    assert (writes, await last_used()) == (0, noted)
    clock = auth.time.monotonic
    monkeypatch.setattr(auth.time, "monotonic", lambda: clock() + 61)
    async with write() as session:
        await session.execute(update(ApiKey).values(last_used_at=noted - timedelta(seconds=61)))
    await server.http.get("/v1/jobs")
    assert writes == 1
    assert await last_used() >= noted


async def test_writes_are_in_the_audit_log_and_reads_are_not(server: Server) -> None:
    job = await server.submit()
    await server.http.post(f"/v1/jobs/{job['id']}/cancel", headers={"X-Request-Id": "mine-1"})
    await server.http.post("/v1/jobs", json={**SPEC, "teacher": "nope"})
    await server.http.post(f"/v1/jobs/{job['id']}/resume")  # refused
    project = await post(server, "/v1/projects", name="vision")
    await server.http.patch("/v1/projects/vision", json={"max_jobs": 2})
    key = await post(server, "/v1/keys", name="ann", role="viewer")
    found = (await server.http.get("/v1/audit")).json()["data"]
    assert [(one["action"], one["target"]) for one in reversed(found)] == [
        ("job.submit", job["id"]),
        ("job.cancel", job["id"]),
        ("project.create", project["id"]),
        ("project.change", project["id"]),
        ("key.create", key["id"]),
    ]
    assert {one["key_id"] for one in found} == {(await server.http.get("/v1/keys")).json()["data"][1]["id"]}
    assert (found[3]["request_id"], found[1]["data"]) == ("mine-1", {"max_jobs": 2})
    assert key["key"] not in str(found)
    (only,) = (await server.http.get(f"/v1/audit?target={key['id']}")).json()["data"]
    assert only["action"] == "key.create"
    before = ChainView.model_validate((await server.http.get("/v1/audit/verify")).json())
    assert (before.intact, before.seq, before.unsealed) == (True, 0, 5)
    await Housekeeping(server.behind.db, 15).tick()
    after = ChainView.model_validate((await server.http.get("/v1/audit/verify")).json())
    assert (after.intact, after.seq, after.unsealed) == (True, 5, 0)
    kept = f"/v1/audit/verify?head={after.seq}:{after.sha256}"
    assert (await server.http.get(kept)).json()["intact"]
    assert not (await server.http.get(kept.replace(":", "0:"))).json()["intact"]


async def test_a_deed_that_fails_leaves_no_entry_and_an_entry_that_fails_undoes_the_deed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("no room for the entry")

    before = await server.rows()
    monkeypatch.setattr("service.audit.row", fail)
    assert (await server.http.post("/v1/jobs", json=SPEC)).status_code == 500
    assert await server.rows() == before


async def test_many_identical_submissions_make_one_job(server: Server) -> None:
    headers = {"Idempotency-Key": "storm"}
    answers = await asyncio.gather(*(server.http.post("/v1/jobs", json=SPEC, headers=headers) for _ in range(200)))
    made = [answer for answer in answers if answer.status_code == 202]
    busy = [answer for answer in answers if answer.status_code == 409]
    assert len(made) + len(busy) == 200
    assert len({answer.text for answer in made}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in made) == 1
    assert {(answer.json()["code"], answer.headers["retry-after"]) for answer in busy} <= {
        ("idempotency_key_in_use", "1")
    }
    if server.behind.db.is_sqlite:
        assert not busy
    rows = await server.rows()
    assert (rows["jobs"], rows["idempotent_requests"], rows["audit_log"]) == (1, 1, 1)


async def test_a_key_in_use_is_told_so(server: Server) -> None:
    """While the first request's transaction is open, on the database where it can be."""
    if server.behind.db.is_sqlite:
        pytest.skip("writers queue there")
    name = f"idempotency {DEFAULT} held"
    async with server.behind.db.write() as session:
        assert await server.behind.db.try_exclusive(session, name)
        answer = await server.http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "held"})
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_in_use")
    assert (await server.http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "held"})).status_code == 202


async def test_every_create_is_done_once_and_secrets_are_not_repeated(server: Server) -> None:
    async def twice(path: str, body: dict[str, Any]) -> list[httpx.Response]:
        return [await server.http.post(path, json=body, headers={"Idempotency-Key": path}) for _ in range(2)]

    first, again = await twice("/v1/projects", {"name": "vision"})
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    first, again = await twice("/v1/keys", {"name": "ann", "role": "viewer"})
    assert again.json() == {**first.json(), "key": None}
    async with server.behind.db.read() as session:
        assert first.json()["key"] not in str((await session.scalars(select(IdempotentRequest.answer))).all())
    creates = [
        operation
        for path in server.app.openapi()["paths"].values()
        for operation in path.values()
        if {"201", "202"} & set(operation["responses"]) and "requestBody" in operation
    ]
    assert len(creates) >= 5
    for operation in creates:
        assert "idempotency-key" in [one["name"] for one in operation["parameters"]], operation["operationId"]


async def test_the_same_key_in_two_projects_makes_two_jobs(server: Server) -> None:
    await post(server, "/v1/projects", name="vision")
    ids = set()
    for project in ("default", "vision", "default"):
        headers = {"Idempotency-Key": "same", "Fewstep-Project": project}
        ids.add((await server.http.post("/v1/jobs", json=SPEC, headers=headers)).json()["id"])
    assert len(ids) == 2


async def test_old_answers_are_forgotten(server: Server) -> None:
    headers = {"Idempotency-Key": "old"}
    first = (await server.http.post("/v1/jobs", json=SPEC, headers=headers)).json()
    async with server.behind.db.write() as session:
        long_ago = await server.behind.db.now(session) - timedelta(hours=25)
        await session.execute(update(IdempotentRequest).values(created_at=long_ago))
    second = (await server.http.post("/v1/jobs", json={**SPEC, "seed": 2}, headers=headers)).json()
    assert first["id"] != second["id"]
    async with server.behind.db.write() as session:
        await session.execute(update(IdempotentRequest).values(created_at=long_ago))
    await Housekeeping(server.behind.db, 15).tick()
    assert (await server.rows())["idempotent_requests"] == 0


async def test_what_jobs_of_another_project_left_is_no_teacher(
    server: Server, teacher_files: Callable[..., dict[str, bytes]]
) -> None:
    job = await server.submit()
    for path, content in teacher_files().items():
        server.write(f"jobs/{job['id']}/students/one/{path}", content)
    await post(server, "/v1/projects", name="other")
    source = f"jobs/{job['id']}/students/one"
    there = {"Fewstep-Project": "other"}
    for disguise in (source, f"./{source}", source.replace("/", "//"), "jobs", "jobs/nope", "jobs/\0"):
        answer = await server.http.post("/v1/teachers", json={"name": "taken", "source": disguise}, headers=there)
        assert (answer.status_code, answer.json()["code"]) == (422, "teacher_invalid"), disguise
        assert "is not a folder" in answer.text or "outside the store" in answer.text, disguise
    assert (await post(server, "/v1/teachers", name="own", source=source))["name"] == "own"
