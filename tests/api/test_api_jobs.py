"""The resources over HTTP: jobs, what they show, students, endpoints, pages, streams."""

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_fixtures import SPEC, Server
from fake_driver import script
from starlette.types import Message

from api import stream
from api.openapi import document
from api.schemas import EndpointView, JobView, StudentView, TeacherView
from service.db import head_revision
from service.methods import METHODS

PNG = b"\x89PNG\r\n\x1a\n"


async def run(server: Server, upto: int | None = None, **spec: Any) -> str:
    """A job that has said the first `upto` things of its script."""
    job_id: str = (await server.submit(**spec))["id"]
    await server.tick()
    folder = f"jobs/{job_id}"
    said = script(folder)[:upto]
    async with await server.attempt(job_id) as driver:
        order = (await driver.get("")).json()
        assert (order["job_id"], order["folder"], order["acknowledged"]) == (job_id, folder, 0)
        assert order["teacher_source"] == "builtin:digits"
        body = {"observations": [{"seq": i, "at": 1e9 + i, **one} for i, one in enumerate(said, 1)]}
        answer = await driver.post("/reports", json=body)
        assert answer.json() == {"acknowledged": len(said), "wish": "run"}
    for one in said:
        for key in ("path", "grid"):
            if str(one.get(key, "")).endswith(".png"):
                server.write(one[key], PNG + one[key].encode())
    await server.tick()
    return job_id


async def test_submit_read_list(server: Server) -> None:
    answer = await server.http.post("/v1/jobs", json={**SPEC, "name": "first"})
    job = JobView.model_validate(answer.json())
    assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/jobs/{job.id}")
    assert (job.status, job.methods, job.progress) == ("queued", ["progressive"], 0)
    read = JobView.model_validate((await server.http.get(f"/v1/jobs/{job.id}")).json())
    assert read == job.model_copy(update={"waiting": "the cluster has not been seen yet"})
    others = [(await server.submit(method={"kind": kind}))["id"] for kind in ("dmd2", "consistency", "dmd2")]
    for query, expected in [
        ("", [*reversed(others), job.id]),
        ("?method=dmd2", [others[2], others[0]]),
        ("?name=first", [job.id]),
        ("?status=queued&status=failed&teacher=digits", [*reversed(others), job.id]),
        ("?status=failed", []),
        ("?teacher=other", []),
    ]:
        page = (await server.http.get(f"/v1/jobs{query}")).json()
        assert [one["id"] for one in page["data"]] == expected, query
    seen, after = [], ""
    while True:
        page = (await server.http.get(f"/v1/jobs?limit=3{after}")).json()
        seen += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['next']}"
    assert seen == [*reversed(others), job.id]


async def test_a_running_job_shows_itself(server: Server) -> None:
    job_id = await run(server, upto=9)
    job = (await server.http.get(f"/v1/jobs/{job_id}")).json()
    assert (job["status"], job["step"], job["attempts"][0]["number"]) == ("running", 4, 1)
    assert 0 < job["progress"] < 1
    assert job["eta_seconds"] == pytest.approx((job["total_steps"] - 4) * 5 / 3)
    metrics = (await server.http.get(f"/v1/jobs/{job_id}/metrics?limit=3")).json()
    assert [one["step"] for one in metrics["data"]] == [1, 2, 3]
    assert metrics["next"] == "3"
    rest = (await server.http.get(f"/v1/jobs/{job_id}/metrics?after=3")).json()
    assert [one["values"] for one in rest["data"]] == [{"loss": 0.25}]
    (sample,) = (await server.http.get(f"/v1/jobs/{job_id}/samples")).json()["data"]
    picture = await server.http.get(sample["url"])
    assert (picture.headers["content-type"], picture.content[:8]) == ("image/png", PNG)
    (checkpoint,) = (await server.http.get(f"/v1/jobs/{job_id}/checkpoints")).json()["data"]
    assert (checkpoint["step"], checkpoint["attempt"]) == (2, 1)
    events = (await server.http.get(f"/v1/jobs/{job_id}/events")).json()["data"]
    assert [one["status"] for one in events if one["type"] == "status"] == ["queued", "starting", "running"]
    other = (await server.submit())["id"]
    assert (await server.http.get(sample["url"].replace(job_id, other))).status_code == 404


async def test_cancel_pause_resume_retry(server: Server) -> None:
    job_id = (await server.submit())["id"]

    async def ask(verb: str, status: int = 202) -> dict[str, Any]:
        answer = await server.http.post(f"/v1/jobs/{job_id}/{verb}")
        assert answer.status_code == status, answer.text
        await server.tick()
        body: dict[str, Any] = answer.json()
        return body

    assert "not paused" in (await ask("resume", 409))["detail"]
    assert "failed or cancelled" in (await ask("retry", 409))["detail"]
    await server.tick()
    assert (await ask("pause"))["wish"] == "pause"
    async with await server.attempt(job_id) as driver:
        stopped = {"seq": 1, "at": 0, "type": "stopped", "wish": "pause", "step": 0}
        assert (await driver.post("/reports", json={"observations": []})).json()["wish"] == "pause"
        await driver.post("/reports", json={"observations": [stopped]})
        await server.tick()
        assert (await driver.post("/reports", json={"observations": []})).json()["code"] == "attempt_fenced"
        assert (await driver.get("")).json()["code"] == "attempt_fenced"
    job = (await server.http.get(f"/v1/jobs/{job_id}")).json()
    assert (job["status"], job["reason"]) == ("paused", "user_pause")
    await ask("resume")
    await server.tick()
    await ask("cancel")
    assert "being cancelled" in (await ask("pause", 409))["detail"]


async def test_attempt_tokens_open_one_attempt_and_nothing_else(server: Server) -> None:
    first, second = (await server.submit())["id"], (await server.submit())["id"]
    await server.tick()
    async with await server.attempt(second) as driver:
        ours = str(driver.base_url)
        assert (await driver.get("")).status_code == 200
        other = (await server.http.get(f"/v1/jobs/{first}")).json()["attempts"][-1]["id"]
        for url in (f"http://test/v1/attempts/{other}", "http://test/v1/jobs", f"http://test/v1/jobs/{first}"):
            assert (await driver.get(url)).status_code == 401, url
    assert (await server.http.get(ours)).status_code == 401  # nor does a user's key speak for an attempt


async def test_students_and_their_files(server: Server) -> None:
    job_id = await run(server, name="mine")
    job = (await server.http.get(f"/v1/jobs/{job_id}")).json()
    assert (job["status"], len(job["students"])) == ("succeeded", 1)
    (found,) = (await server.http.get(f"/v1/students?job={job_id}&method=progressive")).json()["data"]
    student = StudentView.model_validate(found)
    assert (student.name, student.steps, student.figures[4].frechet) == ("mine-progressive-4", [4], 0.9)
    assert sorted(student.teacher_figures) == [4, 50]
    for key in (student.id, student.name):
        assert (await server.http.get(f"/v1/students/{key}")).json() == found
    assert (await server.http.get(student.grid_url)).content.startswith(PNG)
    assert (await server.http.get(student.archive_url)).status_code == 404
    folder = f"jobs/{job_id}/students/{found['method']}-4"
    weights = bytes(range(256)) * 20_000
    server.write(f"{folder}/model_index.json", b"{}")
    server.write(f"{folder}/unet/weights.safetensors", weights)
    answer = await server.http.get(student.archive_url)
    assert answer.headers["content-disposition"] == 'attachment; filename="mine-progressive-4.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["model_index.json", "unet/weights.safetensors"]
        assert archive.read("unet/weights.safetensors") == weights


async def test_endpoints_come_up_and_go_away(server: Server) -> None:
    await run(server, name="mine")
    body = {"name": "fast", "student": "mine-progressive-4"}
    answer = await server.http.post("/v1/endpoints", json=body)
    endpoint = EndpointView.model_validate(answer.json())
    assert (answer.status_code, endpoint.status) == (202, "deploying")
    assert answer.headers["location"] == f"/v1/endpoints/{endpoint.id}"
    assert (await server.http.post("/v1/endpoints", json=body)).status_code == 409
    wrong = (await server.http.post("/v1/endpoints", json={"name": "b", "student": "nope"})).json()
    assert wrong["errors"][0]["pointer"] == "/student"
    await server.tick()
    assert len(server.cluster.puts) == 1
    for said, status in (("DEPLOYING", "deploying"), ("RUNNING", "ready")):
        server.cluster.apps_become(said)
        await server.tick()
        assert (await server.http.get("/v1/endpoints/fast")).json()["status"] == status
    gone = await server.http.delete("/v1/endpoints/fast")
    assert (gone.status_code, gone.json()["status"]) == (202, "deleting")
    await server.tick()
    await server.tick()
    assert (await server.http.get("/v1/endpoints/fast")).status_code == 404
    assert len(server.cluster.puts[-1]["applications"]) == 1  # the gateway


async def test_a_teacher_of_ones_own(server: Server, teacher_files: Callable[..., dict[str, bytes]]) -> None:
    for path, content in teacher_files().items():
        server.write(f"teachers/mine/{path}", content)
    answer = await server.http.post("/v1/teachers", json={"name": "mine", "source": "teachers/mine"})
    teacher = TeacherView.model_validate(answer.json())
    assert (answer.status_code, teacher.image_size, teacher.num_classes) == (201, [1, 8, 8], 10)
    assert (teacher.prediction_type, teacher.parameters) == ("epsilon", 36 + 36 + 176)
    assert teacher.sha256 == hashlib.sha256(teacher_files()["unet/diffusion_pytorch_model.safetensors"]).hexdigest()
    assert (await server.submit(teacher="mine"))["teacher"] == "mine"
    assert (await server.submit(teacher=teacher.id))["teacher"] == "mine"
    again = await server.http.post("/v1/teachers", json={"name": "mine", "source": "teachers/mine"})
    assert again.status_code == 409
    names = [one["name"] for one in (await server.http.get("/v1/teachers")).json()["data"]]
    assert sorted(names) == ["digits", "mine"]


async def test_methods_bring_their_schemas(server: Server) -> None:
    found = (await server.http.get("/v1/methods")).json()["data"]
    assert [one["kind"] for one in found] == list(METHODS)
    one = (await server.http.get("/v1/methods/dmd2")).json()
    assert one["json_schema"]["properties"]["steps"]["maximum"] == 8


async def test_health(server: Server) -> None:
    del server.http.headers["authorization"]
    assert (await server.http.get("/healthz")).json() == {"status": "ok"}
    assert (await server.http.get("/version")).json()["schema_revision"] == head_revision()
    ready = await server.http.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]) == (200, dict.fromkeys(("database", "cluster", "store"), "ok"))
    server.cluster.down = True
    ready = await server.http.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["cluster"]) == (503, "unreachable")
    assert 'fewstep_jobs{status="queued"} 0.0' in (await server.http.get("/metrics")).text


async def test_the_gateway_is_passed_through(server: Server) -> None:
    def gateway(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"object": "list", "data": served})
        assert json.loads(request.content) == {"model": "fast", "prompt": "7"}
        error = {"message": "busy", "type": "server_error", "param": None, "code": "overloaded"}
        return httpx.Response(429, json={"error": error}, headers={"Retry-After": "1"})

    about = {"object": "model", "created": 1, "owned_by": "fewstep", "steps": [4], "num_classes": 10, "text": False}
    served = [{"id": name, **about, "image_size": [1, 8, 8]} for name in ("fast", "fast:teacher", "somebody-elses")]
    await run(server, name="mine")
    made = await server.http.post("/v1/endpoints", json={"name": "fast", "student": "mine-progressive-4"})
    assert (made.json()["num_classes"], made.json()["text"]) == (10, False)
    down = await server.http.post("/v1/images/generations", json={"model": "fast"})
    assert (down.status_code, down.json()["error"]["code"]) == (503, "not_ready")
    server.app.state.gateway = httpx.AsyncClient(transport=httpx.MockTransport(gateway), base_url="http://gateway")
    assert (await server.http.get("/v1/models")).json() == {"object": "list", "data": served[:2]}
    other = await server.http.post("/v1/images/generations", json={"model": "somebody-elses"})
    assert (other.status_code, other.json()["error"]["code"]) == (404, "not_found")
    busy = await server.http.post("/v1/images/generations", json={"model": "fast", "prompt": "7"})
    assert (busy.status_code, busy.headers["retry-after"], busy.json()["error"]["message"]) == (429, "1", "busy")
    wrong = await server.http.post("/v1/images/generations", json={"model": "fast", "size": "big"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (422, "size")


async def listen(server: Server, path: str, last_event_id: str | None = None, enough: int = 10**9) -> str:
    """Read a stream as the server sends it, and hang up after `enough` events or at its end."""
    text, asked = "", False
    headers = [(b"authorization", server.http.headers["authorization"].encode()), (b"accept", b"text/event-stream")]
    if last_event_id is not None:
        headers.append((b"last-event-id", last_event_id.encode()))

    class HangUp(Exception):
        pass

    async def receive() -> Message:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Message) -> None:
        nonlocal text
        text += message.get("body", b"").decode()
        if text.count("\nid: ") >= enough:
            raise HangUp

    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "GET"}
    scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http"}
    scope |= {"headers": headers, "server": ("test", 80), "client": ("test", 1)}
    try:
        await server.app(scope, receive, send)
    except* HangUp:
        pass
    return text


def numbers(text: str) -> list[int]:
    return [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]


async def test_streams_resume_where_they_broke_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POLL_SECONDS", 0.02)
    job_id = await run(server)
    whole = await listen(server, f"/v1/jobs/{job_id}/events")
    events = (await server.http.get(f"/v1/jobs/{job_id}/events")).json()["data"]
    assert numbers(whole) == [one["seq"] for one in events]
    assert whole.endswith("event: end\ndata: {}\n\n")
    told = [json.loads(line[6:]) for line in whole.splitlines() if line.startswith('data: {"')]
    assert told == events
    first = numbers(await listen(server, f"/v1/jobs/{job_id}/events", enough=3))
    rest = numbers(await listen(server, f"/v1/jobs/{job_id}/events", last_event_id=str(first[-1])))
    assert first + rest == [one["seq"] for one in events]
    assert numbers(await listen(server, f"/v1/jobs/{job_id}/logs", last_event_id="1")) == [2, 3]
    assert numbers(await listen(server, f"/v1/jobs/{job_id}/logs", last_event_id="not a number")) == [1, 2, 3]
    assert (await server.http.get("/v1/jobs/nope/events", headers={"Accept": "text/event-stream"})).status_code == 404


async def test_a_quiet_stream_beats(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.02)
    job_id = (await server.submit())["id"]

    reads = 0

    async def fetch(after: int) -> tuple[list[Any], bool]:
        nonlocal reads
        reads += 1
        return [], False

    async def first_beat() -> list[Any]:
        pieces = stream.stream("log", job_id, fetch, 0, server.behind.watch, server.behind.meters.sse_clients)
        heard = []
        async for piece in pieces.body_iterator:
            heard.append(piece)
            if piece == ": alive\n\n":
                break
        return heard

    for heard in await asyncio.gather(*(first_beat() for _ in range(20))):
        assert heard[0] == ": open\n\n"
    assert reads == 1  # for all who listen to the same


async def test_the_dashboard_is_served_beside_the_api(server: Server) -> None:
    del server.http.headers["authorization"]
    for path in ("/", "/jobs/some-job"):
        answer = await server.http.get(path)
        assert answer.status_code in (200, 503)  # built, or told how to build it
        assert "<html" in answer.text or "make setup" in answer.text
    assert (await server.http.get("/assets/nope.js")).status_code in (404, 503)
    assert (await server.http.get("/..%2f..%2f..%2fpyproject.toml")).text.find("[project]") == -1


def test_the_checked_in_openapi_document_is_current() -> None:
    from pathlib import Path

    checked_in = Path(__file__).parents[2] / "api" / "dashboard" / "openapi.json"
    assert checked_in.read_text() == document(), "run: python -m api.openapi > api/dashboard/openapi.json"
