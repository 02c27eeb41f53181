"""A pipeline that is asked in words: what it encodes, what it remembers, and that the images are those of labels."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_all import TINY

from workers import pipeline_model
from workers.artifact import open_model
from workers.diffusion.sampler import SamplerSpec
from workers.pipeline_model import PipelineModel

PROMPTS = ["a cat", "two dogs"]
NAMES = ["stable-diffusion-1", "sdxl", "flux", "sd3", "sana", "z-image", "pixart-sigma"]


@pytest.fixture(params=NAMES)
def teacher(request: pytest.FixtureRequest, tmp_path: Path) -> PipelineModel:
    name = next(one for one in TINY if one.startswith(request.param))
    TINY[name].make().save_pretrained(tmp_path, safe_serialization=True)
    return PipelineModel(TINY[name].family, tmp_path, (), PROMPTS)


def watched(model: PipelineModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that are encoded from now on."""
    encoded: list[str] = []
    encode = model.family.encode

    def watch(pipe: Any, prompts: list[str]) -> Any:
        encoded.extend(prompts)
        return encode(pipe, prompts)

    monkeypatch.setattr(model.family, "encode", watch)
    return encoded


def test_words_make_the_images_of_their_labels(teacher: PipelineModel) -> None:
    labels = torch.tensor([1, 0, 1])
    in_words = teacher.generate([PROMPTS[i] for i in labels], [1, 2, 3], 2, guidance=3.0)
    torch.testing.assert_close(in_words, teacher.generate(labels, [1, 2, 3], 2, guidance=3.0), atol=1e-4, rtol=0)
    assert teacher.denoiser.num_classes == len(PROMPTS), "what it was opened with is left alone"


def test_a_prompt_is_encoded_once_and_forgotten_for_newer_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = TINY["stable-diffusion-1"]
    tiny.make().save_pretrained(tmp_path, safe_serialization=True)
    model = PipelineModel(tiny.family, tmp_path, (), [])
    encoded = watched(model, monkeypatch)
    monkeypatch.setattr(pipeline_model, "REMEMBERED", 3)
    model.generate(["a", "b", "a"], [1, 2, 3], 1)
    assert encoded == ["a", "b", ""]
    model.generate(["b", "a"], [1, 2], 1)
    assert encoded == ["a", "b", ""]
    model.generate(["c"], [1], 1)
    model.generate(["b"], [1], 1)
    assert encoded == ["a", "b", "", "c"]
    model.generate(["a"], [1], 1)
    assert encoded == ["a", "b", "", "c", "a"]


def test_a_student_encodes_no_empty_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = TINY["sdxl"]
    tiny.make().save_pretrained(tmp_path / "teacher", safe_serialization=True)
    teacher = PipelineModel(tiny.family, tmp_path / "teacher", (), PROMPTS)
    sampler = SamplerSpec.on(teacher.denoiser.path, "ddim", [2])
    teacher.write_student(tmp_path / "student", teacher.denoiser.trainable_copy(), sampler)
    student = open_model(tmp_path / "student", (2,), PROMPTS)
    assert isinstance(student, PipelineModel)
    encoded = watched(student, monkeypatch)
    images = student.generate(PROMPTS, [4, 5], 2)
    assert encoded == PROMPTS
    torch.testing.assert_close(images, student.generate(torch.arange(2), [4, 5], 2), atol=1e-4, rtol=0)
