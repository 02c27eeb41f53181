"""The recipes for published models: jobs that the service accepts, and that run, shortened, on tiny pipelines."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from tiny_all import TINY

from service import compatibility
from service.families import UNET2D
from service.observations import DatasetOrder
from service.spec import JobSpec
from service.tables import Dataset as DatasetRow
from service.tables import Teacher
from workers import finish, stages, trainer
from workers.data import dataset as data
from workers.run import FolderHost

FOLDER = Path(stages.__file__).parent / "recipes"
TEACHERS = {
    "sd15": ("stable-diffusion", [3, 512, 512], "stable-diffusion-1"),
    "sdxl": ("sdxl", [3, 1024, 1024], "sdxl"),
    "sd35": ("sd3", [3, 1024, 1024], "sd3"),
    "sana": ("sana", [3, 1024, 1024], "sana"),
    "edm-cifar10": ("unet2d", [3, 32, 32], "edm"),
}
"""By the name in the recipes: family, size in pixels, and the tiny pipeline of the family."""

RECIPES = {
    "ect-edm-cifar10": ("ect", [[1, 2, 4]]),
    "dmd2-sdxl": ("dmd2", [[4, 2]]),
    "ladd-sd3": ("ladd", [[4, 2, 1]]),
    "lcm-lora-sdxl": ("lcm", [[1, 2, 4]]),
    "reflow-sd15": ("instaflow", [[4, 2], [1]]),
    "scm-sana": ("scm", [[1, 2, 4]]),
}
"""Method, and the steps of its students; of EDM's networks the first of them alone."""

CAPTIONS = ["a cat", "two dogs", "a boat", "the sun"]
SHORT = {
    "iterations": 2,
    "distil_iterations": 2,
    "batch_size": 2,
    "micro_batches": 1,
    "fake_updates": 1,
    "pairs": 4,
    "pair_steps": 2,
    "lora_rank": 2,
}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return found


def row(name: str) -> DatasetRow:
    images, content = name != "prompts", "nothing" if name == "cifar10" else "captions"
    return DatasetRow(name=name, format="images" if images else "prompts", content=content, samples=1000, classes=None)


def test_these_are_all_that_are_not_for_the_digits() -> None:
    found = {path.stem for path in FOLDER.glob("*.yaml") if yaml.safe_load(path.read_text())["teacher"] != "digits"}
    assert found == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_service_accepts_it(name: str) -> None:
    written = read(name)
    spec = JobSpec.model_validate(written)
    family, size, tiny = TEACHERS[spec.teacher]
    teacher = Teacher(name=spec.teacher, family=family, text=family != UNET2D, num_classes=None, image_size=size)
    teacher.scheduler = type(TINY[tiny].make().scheduler).__name__
    compatibility.check(spec, teacher, row(written["data"]))
    method = spec.chain()[0].method
    assert (written["name"], (method.kind, method.student_steps())) == (name, RECIPES[name])
    assert spec.resources.gpus_per_worker == 1


@pytest.mark.parametrize("name", RECIPES)
def test_what_it_expects_is_said_to_be_the_papers(name: str) -> None:
    text = " ".join(line.removeprefix("# ") for line in (FOLDER / f"{name}.yaml").read_text().splitlines())
    for said in ("arXiv:", "Hardware: ", "The paper's: ", "What it gives here has not been measured"):
        assert said in text


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> data.Dataset:
    """A folder of four images with captions and classes."""
    folder = tmp_path_factory.mktemp("images")
    rng = torch.Generator().manual_seed(0)
    lines = []
    for i, caption in enumerate(CAPTIONS):
        pixels = torch.randint(256, (48, 48, 3), generator=rng, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": caption, "label": i % 3}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return data.Dataset(DatasetOrder(source="images", format="images", content="captions", samples=4), folder)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in RECIPES])
def test_it_runs_on_a_tiny_pipeline_of_the_family(
    name: str, images: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one CPU, with its students kept instead of judged; prompts take the place of a dataset of them."""
    monkeypatch.setattr(trainer, "LARGEST_SAMPLE", math.inf)  # random weights make samples of any size
    students: list[str] = []
    monkeypatch.setattr(finish, "export", lambda *told, **more: students.append(told[4]))
    spec = read(name)
    for field in ("resources", "compute"):
        del spec[field]
    spec["method"] |= {field: value for field, value in SHORT.items() if field in spec["method"]}
    dataset: data.Dataset | None = images
    if spec["data"] == "prompts":
        del spec["data"]
        spec["prompts"], dataset = CAPTIONS, None
    tiny = TINY[TEACHERS[spec["teacher"]][2]]
    tiny.make().save_pretrained(tmp_path / "teacher", safe_serialization=True)
    job = JobSpec.model_validate(spec)
    host = FolderHost(tmp_path / "run", torch.device("cpu"))
    outcome = stages.run(job, tmp_path / "teacher", host, dataset)
    assert outcome == stages.Outcome(None, job.total_steps())
    assert len(students) == len(RECIPES[name][1])
    losses = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == job.total_steps()
    assert all(math.isfinite(line["loss"]) for line in losses)
