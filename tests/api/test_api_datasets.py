"""Datasets over the API: from a folder in the store to the order of the job that learns from it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from api_fixtures import Server, command_line

from api.render import console, datasets_table, job_sheet
from api.schemas import DatasetView, JobView
from service.observations import DatasetOrder

Files = Callable[..., dict[str, bytes]]


async def register(server: Server, name: str, source: str, **headers: str) -> Any:
    return await server.http.post("/v1/datasets", json={"name": name, "source": source}, headers=headers)


@pytest.fixture
async def plain(server: Server, teacher_files: Files) -> str:
    """A teacher of other images than those that ship, without classes."""
    for path, content in teacher_files(sample_size=32, num_class_embeds=None).items():
        server.write(f"teachers/plain/{path}", content)
    made = await server.http.post("/v1/teachers", json={"name": "plain", "source": "teachers/plain"})
    return str(made.json()["name"])


async def test_a_dataset_of_ones_own(server: Server, plain: str) -> None:
    spec = {"teacher": plain, "method": {"kind": "progressive"}}
    refused = await server.http.post("/v1/jobs", json=spec)
    assert "POST /v1/datasets" in refused.json()["errors"][0]["detail"]

    for path in ("cat/a.png", "cat/b.png", "dog/a.png"):
        server.write(f"data/pets/{path}", b"1234")
    answer = await register(server, "pets", "data/pets")
    assert answer.status_code == 201, answer.text
    dataset = DatasetView.model_validate(answer.json())
    assert answer.headers["location"] == f"/v1/datasets/{dataset.id}"
    assert dataset.id.startswith("dat_")
    assert (dataset.format, dataset.content, dataset.samples, dataset.bytes) == ("images", "classes", 3, 12)
    assert dataset.classes == ["cat", "dog"]
    assert (await register(server, "pets", "data/pets")).status_code == 409
    for name in ("pets", dataset.id):
        assert (await server.http.get(f"/v1/datasets/{name}")).json() == answer.json()
    listed = (await server.http.get("/v1/datasets")).json()["data"]
    assert [one["id"] for one in listed] == [dataset.id]

    assert (await server.http.post("/v1/jobs:validate", json={**spec, "data": "pets"})).status_code == 200
    for name in ("pets", dataset.id):
        job = await server.submit(**spec, data=name)
        assert job["data"] == job["spec"]["data"] == name
    await server.tick()
    await server.tick()
    async with await server.attempt(job["id"]) as attempt:
        order = (await attempt.get("")).json()
    assert DatasetOrder.model_validate(order["dataset"]) == DatasetOrder(
        source="data/pets", format="images", content="classes", samples=3, classes=["cat", "dog"]
    )
    with console.capture() as shown:
        console.print(datasets_table([dataset]))
        console.print(job_sheet(JobView.model_validate(job)))
    assert dataset.id in shown.get()
    assert "classes" in shown.get()


async def test_a_job_without_data_has_none_in_its_order(server: Server) -> None:
    job = await server.submit()
    assert job["data"] is None
    await server.tick()
    async with await server.attempt(job["id"]) as attempt:
        assert (await attempt.get("")).json()["dataset"] is None


async def test_what_does_not_fit_names_the_field(server: Server, plain: str) -> None:
    server.write("data/asked/prompts.txt", b"a fox\na hen\n")
    server.write("data/all/a.png", b"1")
    for name in ("asked", "all"):
        assert (await register(server, name, f"data/{name}")).status_code == 201
    before = await server.rows()
    for teacher, data, pointer, sentence in (
        ("digits", "al", "/data", "did you mean 'all'? Registered are: all, asked."),
        ("digits", "\0", "/data", "There is no such dataset"),
        ("digits", "all", "/data", "have no classes, and teacher 'digits' is asked by class"),
        (plain, "asked", "/method/kind", "needs training images, and dataset 'asked' holds prompts alone"),
    ):
        spec = {"teacher": teacher, "data": data, "method": {"kind": "progressive"}}
        answer = await server.http.post("/v1/jobs", json=spec)
        assert answer.status_code == 422, answer.text
        errors = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
        assert sentence in errors[pointer]
    assert await server.rows() == before


async def test_a_bad_dataset_is_refused_and_not_stored(server: Server) -> None:
    server.write("data/cut/0.tar", b"a.png".ljust(512, b"\0"))
    server.write("data/file.txt", b"a fox")
    before = await server.rows()
    for source in ("data/cut", "data/file.txt", "data/none", "../data", "hf://org/name", "s3://a/b", "jobs", "a\0b"):
        answer = await register(server, "bad", source)
        assert (answer.status_code, answer.json()["code"]) == (422, "data_invalid"), answer.text
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/source"
    assert await server.rows() == before


async def test_datasets_are_their_projects(server: Server) -> None:
    job = await server.submit()
    server.write(f"jobs/{job['id']}/pictures/a.png", b"1")
    server.write("data/a.png", b"1")
    assert (await server.http.post("/v1/projects", json={"name": "other"})).status_code == 201
    there = {"Fewstep-Project": "other"}
    taken = await register(server, "taken", f"jobs/{job['id']}/pictures", **there)
    assert (taken.status_code, taken.json()["code"]) == (422, "data_invalid")
    assert "is not a folder" in taken.text
    mine = (await register(server, "mine", f"jobs/{job['id']}/pictures")).json()["id"]
    assert (await register(server, "mine", "data", **there)).status_code == 201
    assert (await server.http.get(f"/v1/datasets/{mine}", headers=there)).status_code == 404
    assert len((await server.http.get("/v1/datasets", headers=there)).json()["data"]) == 1
    spec = {"teacher": "digits", "data": mine, "method": {"kind": "progressive"}}
    assert (await server.http.post("/v1/jobs", json=spec, headers=there)).status_code == 422


async def test_the_command_line_and_the_client(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    say = command_line(server, monkeypatch)
    server.write("data/asked/prompts.txt", b"a fox\na hen\n")
    assert "prompts" in await say("datasets", "add", "asked", "data/asked")
    assert "1 " in await say("datasets", "add", "none", "data/none")
    listed = json.loads((await say("datasets", "list", "--json")).partition(" ")[2])
    assert [(one["name"], one["samples"]) for one in listed] == [("asked", 2)]
    refused = await say("jobs", "submit", "--method", "progressive", "--data", "asked")
    assert "holds prompts alone" in " ".join(refused.split())
