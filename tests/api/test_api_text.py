"""Teachers that are asked by prompts, from the folder in the store to the order of the job."""

from pathlib import Path

import pytest
from api_fixtures import Server
from tiny_stable_diffusion import sdxl

from api.render import console, teachers_table
from api.schemas import TeacherView


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sdxl")
    sdxl().save_pretrained(made)
    return made


async def test_a_text_to_image_teacher(server: Server, folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            server.write(f"teachers/xl/{file.relative_to(folder)}", file.read_bytes())
    made = await server.http.post("/v1/teachers", json={"name": "xl", "source": "teachers/xl"})
    assert made.status_code == 201, made.text
    teacher = TeacherView.model_validate(made.json())
    assert (teacher.family, teacher.text, teacher.num_classes) == ("sdxl", True, None)
    assert (teacher.image_size, teacher.prediction_type) == ([3, 16, 16], "epsilon")
    with console.capture() as shown:
        console.print(teachers_table([teacher]))
    assert "sdxl" in shown.get()
    assert "prompts" in shown.get()

    spec = {"teacher": "xl", "method": {"kind": "dmd2", "guidance_scale": 4}}
    refused = await server.http.post("/v1/jobs", json=spec)
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/prompts"]
    prompts = ["a red fox", "a lighthouse"]
    valid = (await server.http.post("/v1/jobs:validate", json={**spec, "prompts": prompts})).json()
    assert valid["estimated_memory_bytes"] > 4 * teacher.parameters
    job = await server.submit(**spec, prompts=prompts)
    assert job["spec"]["prompts"] == prompts
    await server.tick()
    async with await server.attempt(job["id"]) as attempt:
        assert (await attempt.get("")).json()["spec"]["prompts"] == prompts
