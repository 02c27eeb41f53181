"""Students that are low-rank updates: one file turns the teacher's own pipeline, in plain diffusers, into them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from tiny_all import TINY
from torch import Tensor

from service.spec import JobSpec
from workers import finish, pipeline_model, stages, trainer
from workers.artifact import load_student
from workers.data.source import ImageSource
from workers.families.registry import FAMILIES
from workers.models.denoiser import Denoiser
from workers.pipeline_model import LORA, PipelineModel
from workers.run import FolderHost

PROMPTS = ["a cat", "two dogs", "a boat"]
LCM = {"kind": "lcm", "iterations": 3, "batch_size": 2, "lora_rank": 4, "guidance_scale": 2.0, "learning_rate": 0.2}
DMD2 = {
    **{"kind": "dmd2", "iterations": 3, "steps": 1, "batch_size": 2, "fake_updates": 1, "gan_weight": 0.01},
    **{"lora_rank": 4, "fake_lora_rank": 2, "guidance_scale": 2.0, "learning_rate": 0.2},
}
EVERYWHERE = [
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "time_emb_proj"),
    *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
]
"""The layers of the published LCM-LoRAs."""
NAMES = [
    pytest.param(name, marks=[] if name == "sdxl" else pytest.mark.slow)
    for name, tiny in TINY.items()
    if tiny.family.pipeline.__name__ in FAMILIES
]


def latents(teacher: Denoiser) -> ImageSource:
    rng = torch.Generator().manual_seed(1)
    return ImageSource(torch.randn(6, *teacher.shape, generator=rng), torch.arange(6) % 3)


def distilled(name: str, method: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The student's folder; the teacher's is `folder`/teacher."""
    monkeypatch.setattr(trainer, "LARGEST_SAMPLE", math.inf)  # random weights make samples of any size
    monkeypatch.setattr(stages, "image_source", latents)
    TINY[name].make().save_pretrained(folder / "teacher", safe_serialization=True)
    spec = {
        "teacher": name,
        "prompts": None if name.startswith("dit") else PROMPTS,
        "method": method,
        "preview_every": 100,
        "evaluation": {"samples": 100, "teacher_steps": 1},
    }
    host = FolderHost(folder / "run", torch.device("cpu"))
    stages.run(JobSpec.model_validate(spec), folder / "teacher", host)
    (student,) = (file for file in (folder / "run" / "students").iterdir() if file.is_dir())
    return student


def pipeline(name: str, folder: Path) -> Any:
    pipe: Any = TINY[name].family.pipeline.from_pretrained(folder)
    assert isinstance(pipe, DiffusionPipeline)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def images(name: str, pipe: Any, steps: int, size: tuple[int, ...]) -> Tensor:
    """Plain diffusers' for two seeds."""
    asked: list[Any] = [1, 2] if name.startswith("dit") else PROMPTS[:2]
    torch.manual_seed(3)
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    return TINY[name].family.plain(pipe, asked, generators, steps, size)


@pytest.mark.parametrize("method", [LCM, DMD2], ids=["lcm", "dmd2"])
@pytest.mark.parametrize("name", NAMES)
def test_the_teachers_pipeline_with_the_file_is_the_student(
    name: str, method: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = name == "sdxl" and method is LCM
    folder = distilled(name, method | ({"lora_targets": EVERYWHERE} if everywhere else {}), tmp_path, monkeypatch)
    student = load_student(folder)
    assert isinstance(student, PipelineModel)
    family, size = TINY[name].family, student.image_size
    assert LORA in json.loads((folder / "manifest.json").read_text())["files"]
    update = load_file(folder / LORA)
    assert all(key.startswith(f"{family.part}.") for key in update)
    assert {tensor.shape[0] for key, tensor in update.items() if key.endswith("lora_A.weight")} == {4}
    layers = {key.removesuffix(".lora_A.weight") for key in update if key.endswith(".lora_A.weight")}
    targets = EVERYWHERE if everywhere else family.lora_targets
    assert all(any(layer.endswith(f".{target}") for layer in layers) for target in targets)

    merged, teacher = pipeline(name, folder), pipeline(name, tmp_path / "teacher")
    card = (folder / "README.md").read_text()
    if not hasattr(teacher, "load_lora_weights"):
        assert "cannot load it by itself" in card
        weights = getattr(teacher, family.part).state_dict()
        for key in (key for key in update if key.endswith("lora_A.weight")):
            layer = key.removeprefix(f"{family.part}.").removesuffix(".lora_A.weight")
            change = update[key.replace("lora_A", "lora_B")] @ update[key]
            after = getattr(merged, family.part).state_dict()[f"{layer}.weight"]
            torch.testing.assert_close(weights[f"{layer}.weight"] + change, after, atol=1e-6, rtol=0)
        return
    assert f'pipeline.load_lora_weights("{LORA}")' in card
    teacher.scheduler = merged.scheduler
    before = images(name, teacher, 1, size)
    teacher.load_lora_weights(folder)  # the whole folder: the file is found by its name
    assert (images(name, teacher, 1, size) - before).abs().max() > 0.001, "the update makes a difference"
    for steps in student.steps:
        ours = images(name, teacher, steps, size)
        torch.testing.assert_close(ours, images(name, merged, steps, size), atol=1e-4, rtol=0)
    asked: Any = torch.tensor([1, 2]) if name.startswith("dit") else PROMPTS[:2]
    one = images(name, teacher, 1, size).clamp(-1, 1)
    torch.testing.assert_close(one, student.generate(asked, [0, 1], 1), atol=1e-4, rtol=0)


def test_a_file_that_is_not_the_students_update_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = pipeline_model.PipelineModel.write_lora

    def half(self: PipelineModel, folder: Path, update: dict[str, Tensor]) -> None:
        """As a tool leaves it that takes alpha for half of the rank."""
        honest(self, folder, {name: tensor / 2 if "lora_B" in name else tensor for name, tensor in update.items()})

    monkeypatch.setattr(pipeline_model.PipelineModel, "write_lora", half)
    with pytest.raises(finish.ExportMismatch, match="the teacher with the exported LoRA"):
        distilled("sdxl", DMD2, tmp_path, monkeypatch)
