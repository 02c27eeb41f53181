"""Bad input: problem+json that names the field and the fix, and nothing stored."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_fixtures import SPEC, Server

from api.schemas import Problem
from service.methods import METHODS

Files = Callable[..., dict[str, bytes]]


def method(**settings: Any) -> dict[str, Any]:
    return {"teacher": "digits", "method": {"kind": "progressive", **settings}}


def check(answer: httpx.Response, status: int, code: str) -> Problem:
    """Problem+json to the letter."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(answer.json(), extra="forbid")
    assert (problem.status, problem.code) == (status, code)
    assert problem.request_id == answer.headers["x-request-id"]
    return problem


BAD_SPECS: list[tuple[dict[str, Any], str, str]] = [
    ({"teacher": "digits", "method": {"kind": "progresive"}}, "/method/kind", "did you mean 'progressive'"),
    ({"teacher": "digits", "method": {"kind": "magic"}}, "/method/kind", f"Known are: {', '.join(METHODS)}"),
    ({"teacher": "digits", "method": {}}, "/method/kind", "add it"),
    (method(frist_steps=4), "/method/frist_steps", "did you mean 'first_steps'"),
    ({**SPEC, "sead": 3}, "/sead", "did you mean 'seed'"),
    (method(first_steps=6, last_steps=4), "/method/first_steps", "for example first_steps=16"),
    (method(batch_size=0), "/method/batch_size", "greater than or equal to 1"),
    (method(batch_size=10**12), "/method/batch_size", "less than or equal to 65536"),
    (method(learning_rate="fast"), "/method/learning_rate", "must be a valid number"),
    (method(learning_rate=float("inf")), "/method/learning_rate", "finite"),
    ({"method": {"kind": "dmd2"}}, "/teacher", "add it"),
    ({"teacher": "digits"}, "", "either method or stages"),
    ({**SPEC, "teacher": "digitz"}, "/teacher", "did you mean 'digits'"),
    ({**SPEC, "teacher": "\0"}, "/teacher", "Registered are: digits"),
    ({**SPEC, "name": "No Spaces"}, "/name", "pattern"),
    ({**SPEC, "name": "x\ud800"}, "/name", "unicode"),
    ({**SPEC, "a/b~c": 1}, "/a~1b~0c", "not known here"),
    ({"teacher": "digits", "stages": [{"method": {"kind": "dmd2", "stepz": 1}}]}, "/stages/0/method/stepz", "'steps'"),
    ({**SPEC, "resources": {"workers": 3}}, "", "multiple of resources.workers (3)"),
]


async def test_a_bad_spec_is_refused_alike_by_submit_and_validate(server: Server) -> None:
    before = await server.rows()
    for (spec, pointer, fix), path in itertools.product(BAD_SPECS, ["/v1/jobs", "/v1/jobs:validate"]):
        content = json.dumps(spec).encode()
        answer = await server.http.post(path, content=content, headers={"Content-Type": "application/json"})
        errors = check(answer, 422, "invalid_request").errors
        assert [error["pointer"] for error in errors] == [pointer], spec
        assert fix in errors[0]["detail"], spec
    assert await server.rows() == before


BAD_BODIES = [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a":' * 50_000, b"1e999"]


async def test_a_body_that_is_no_object_is_refused(server: Server) -> None:
    before = await server.rows()
    for body in BAD_BODIES:
        answer = await server.http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), body[:10]
        assert answer.headers["content-type"] == "application/problem+json"
    assert await server.rows() == before


async def test_a_long_body_is_refused_announced_or_not(server: Server) -> None:
    before = await server.rows()
    body = json.dumps({**SPEC, "name": "x" * 10_000_000}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    for content in (body, pieces()):
        answer = await server.http.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
        assert "1,000,000 bytes" in check(answer, 413, "body_too_large").detail
    assert await server.rows() == before


async def test_without_a_valid_key_nothing_is_told(server: Server) -> None:
    before = await server.rows()
    del server.http.headers["authorization"]
    for key in (None, "", "Bearer ", "Bearer wrong", "Basic abc", "Bearer fsk_\xfc"):
        headers = {} if key is None else {b"Authorization": key.encode("latin-1")}
        for verb, path in (("POST", "/v1/jobs"), ("GET", "/v1/jobs"), ("GET", "/v1/jobs/x"), ("GET", "/v1/methods")):
            answer = await server.http.request(verb, path, headers=headers, json=SPEC if verb == "POST" else None)
            assert "Authorization: Bearer" in check(answer, 401, "unauthorized").detail
            assert answer.headers["www-authenticate"] == "Bearer"
        answer = await server.http.get("/v1/models", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "unauthorized"
    assert await server.rows() == before


async def test_every_route_but_the_open_ones_asks_for_a_key(server: Server) -> None:
    del server.http.headers["authorization"]
    for path, operations in server.app.openapi()["paths"].items():
        for verb, operation in operations.items():
            expected = "security" in operation
            assert expected == path.startswith("/v1"), path
            if expected:
                answer = await server.http.request(verb, path.replace("{", "").replace("}", ""))
                assert answer.status_code in (401, 422), path  # a wrong body may be told before a wrong key


async def test_what_is_not_there(server: Server) -> None:
    for path in ("/v1/nope", "/v1/jobs/job_x", "/v1/students/%00", "/v1/endpoints/%00", "/v1/teachers/x%00"):
        check(await server.http.get(path), 404, "not_found")


async def test_a_wrong_verb_is_told_the_right_one(server: Server) -> None:
    for path, verbs in (("/v1/jobs", "GET, POST"), ("/v1/jobs/job_x/cancel", "POST"), ("/healthz", "GET")):
        answer = await server.http.put(path)
        assert f"takes {verbs}" in check(answer, 405, "method_not_allowed").detail
        assert answer.headers["allow"] == verbs
    assert "takes POST" in check(await server.http.get("/v1/jobs/job_x/cancel"), 405, "method_not_allowed").detail


async def test_the_unexpected_is_not_explained_to_strangers(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret internals")

    monkeypatch.setattr("service.listing.page", fail)
    answer = await server.http.get("/v1/jobs", headers={"X-Request-Id": "mine-1"})
    problem = check(answer, 500, "internal_error")
    assert problem.request_id == "mine-1"
    assert "secret" not in answer.text


async def test_idempotency_keys(server: Server) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await server.http.post("/v1/jobs", json=SPEC, headers=headers)
    before = await server.rows()
    again = await server.http.post("/v1/jobs", json=SPEC, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    other = await server.http.post("/v1/jobs", json={**SPEC, "seed": 1}, headers=headers)
    assert "new key" in check(other, 422, "idempotency_key_reused").detail
    elsewhere = await server.http.post("/v1/endpoints", json={"name": "a", "student": "b"}, headers=headers)
    check(elsewhere, 422, "idempotency_key_reused")
    wrong = await server.http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "ü".encode("latin-1")})
    assert check(wrong, 422, "invalid_request").errors[0]["pointer"] == "/header/idempotency-key"
    assert await server.rows() == before


async def test_a_refused_create_does_not_spend_the_key(server: Server) -> None:
    headers = {"Idempotency-Key": "again"}
    check(await server.http.post("/v1/jobs", json={**SPEC, "teacher": "x"}, headers=headers), 422, "invalid_request")
    assert (await server.http.post("/v1/jobs", json=SPEC, headers=headers)).status_code == 202


async def test_one_key_at_the_same_moment_creates_one_job(server: Server) -> None:
    headers = {"Idempotency-Key": "race"}
    answers = await asyncio.gather(*(server.http.post("/v1/jobs", json=SPEC, headers=headers) for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
    assert (await server.rows())["jobs"] == 1


WITHOUT = "missing"
BAD_TEACHERS: list[tuple[dict[str, Any], str]] = [
    ({"scheduler/scheduler_config.json": WITHOUT}, "scheduler/scheduler_config.json is missing"),
    ({"model_index.json": WITHOUT}, "model_index.json is missing"),
    ({"unet/config.json": b"{"}, "unet/config.json is not valid JSON"),
    ({"unet/config.json": b"[]"}, "does not hold a JSON object"),
    ({"unet/diffusion_pytorch_model.safetensors": WITHOUT}, "unet/diffusion_pytorch_model.safetensors is missing"),
    ({"unet/diffusion_pytorch_model.bin": b"x"}, "unet/diffusion_pytorch_model.bin is a pickle"),
    ({"weights.ckpt": b"x"}, "weights.ckpt is a pickle"),
    ({"unet/model.py": b"import os"}, "unet/model.py is code"),
    ({"unet/diffusion_pytorch_model.safetensors": b"\x80\x04pickle"}, "is not a safetensors file"),
    ({"unet/diffusion_pytorch_model.safetensors": b"\xff" * 64}, "is not a safetensors file"),
    ({"scheduler/scheduler_config.json": b'{"prediction_type": "flow"}'}, "known are epsilon"),
    ({"unet/config.json": b'{"_class_name": "Transformer2DModel"}'}, "only UNet2DModel"),
    ({"model_index.json": b'{"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"]}'}, "on pixels and by"),
    ({"model_index.json": b'{"_class_name": "X", "unet": ["my.code", "Net"]}'}, "it may bring no code"),
    ({"scheduler/scheduler_config.json": b'{"_class_name": "EDMEulerScheduler"}'}, "no noise schedule of betas"),
    ({"scheduler/scheduler_config.json": b'{"_class_name": "KarrasVeScheduler"}'}, "no noise schedule of betas"),
    ({"scheduler/scheduler_config.json": b'{"beta_schedule": "squaredcos_cap_v2"}'}, "its last timestep is pure noise"),
    ({"scheduler/scheduler_config.json": b'{"trained_betas": ["a"]}'}, "values that are no numbers"),
]


BAD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"in_channels": 3, "out_channels": 3}, "conv_in.weight has shape [4, 1, 3, 3]"),
    ({"in_channels": 3}, "in_channels equal to out_channels"),
    ({"num_class_embeds": 7}, "class_embedding.weight has shape [11, 16]"),
    ({"num_class_embeds": 1}, "num_class_embeds of at least 2"),
    ({"sample_size": None}, "has no sample_size"),
]


async def test_a_bad_teacher_is_refused(server: Server, teacher_files: Files) -> None:
    before = await server.rows()
    cases = [({**teacher_files(), **changes}, fix) for changes, fix in BAD_TEACHERS]
    cases += [(teacher_files(**config), fix) for config, fix in BAD_CONFIGS]
    for number, (files, fix) in enumerate(cases):
        for path, content in files.items():
            if content is not WITHOUT:
                server.write(f"teachers/bad{number}/{path}", content)
        answer = await server.http.post("/v1/teachers", json={"name": "bad", "source": f"teachers/bad{number}"})
        (error,) = check(answer, 422, "teacher_invalid").errors
        assert error["pointer"] == "/source"
        assert fix in error["detail"]
    assert await server.rows() == before


OUTSIDE = ["../outside", "/etc", "teachers/../..", "file:///etc", "a\\b", "a\0b", "leads-out", "."]


async def test_paths_outside_the_store_are_refused(server: Server, tmp_path: Path) -> None:
    server.write("teachers/x", b"")
    root = Path(server.settings.resolved_store_url().removeprefix("file://"))
    (root / "leads-out").symlink_to(tmp_path)
    before = await server.rows()
    for source in OUTSIDE:
        answer = await server.http.post("/v1/teachers", json={"name": "bad", "source": source})
        problem = check(answer, 422, "teacher_invalid")
        assert problem.errors[0]["pointer"] == "/source"
        assert "path outside the store" in problem.detail, source
    assert await server.rows() == before


MISFITS: list[tuple[dict[str, Any], dict[str, str]]] = [
    (
        {"method": {"kind": "dmd2", "guidance_scale": 2}},
        {"/method/guidance_scale": "Set it to 1: teacher 'plain' knows no classes"},
    ),
    (
        {"method": {"kind": "instaflow"}},
        {"/method/guidance_scale": "Set it to 1"},
    ),
    (
        {"method": {"kind": "guidance"}},
        {"/method/kind": "learns guidance, and teacher 'plain' knows no classes"},
    ),
    (
        {"method": {"kind": "progressive"}},
        {"/method/kind": "needs training images, and there are only digits of [1, 8, 8]"},
    ),
    (
        {"stages": [{"method": {"kind": "dmd2"}}, {"method": {"kind": "dmd2", "gan_weight": 0.01}}]},
        {"/stages/1/method/kind": "These need none: "},
    ),
]


@pytest.mark.parametrize("route", ["/v1/jobs", "/v1/jobs:validate"])
async def test_a_method_that_its_teacher_cannot_feed_is_refused(
    server: Server, route: str, teacher_files: Files
) -> None:
    for path, content in teacher_files(sample_size=32, num_class_embeds=None).items():
        server.write(f"teachers/plain/{path}", content)
    made = await server.http.post("/v1/teachers", json={"name": "plain", "source": "teachers/plain"})
    assert made.status_code == 201, made.text
    before = await server.rows()
    for spec, expected in MISFITS:
        answer = await server.http.post(route, json={"teacher": "plain", **spec})
        errors: dict[str, str] = {}
        for error in check(answer, 422, "invalid_request").errors:
            errors[error["pointer"]] = errors.get(error["pointer"], "") + error["detail"]
        assert errors.keys() == expected.keys()
        assert all(fix in errors[pointer] for pointer, fix in expected.items()), errors
    assert await server.rows() == before
    fits = await server.http.post(route, json={"teacher": "plain", "method": {"kind": "dmd2"}})
    assert fits.status_code in (200, 202), fits.text
