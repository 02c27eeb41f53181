"""From a pipeline's folder to a student's, and plain diffusers on it: every family, two methods of different shape."""

import json
import math
import weakref
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from tiny_all import TINY

from service.inspection import inspect
from service.spec import JobSpec
from service.storage import Storage
from service.stored_folder import StoredFolder
from workers import finish, stages, trainer
from workers.artifact import load_student
from workers.families.registry import FAMILIES
from workers.models.flow_backbone import FlowBackbone
from workers.pipeline_model import PipelineModel
from workers.run import FolderHost

PROMPTS = ["a cat", "two dogs", "a boat"]
DMD2 = {"kind": "dmd2", "iterations": 2, "steps": 1, "batch_size": 2, "fake_updates": 1, "guidance_scale": 2.0}
KD = {"kind": "kd", "iterations": 2, "batch_size": 2, "pairs": 4, "pair_steps": 2}
ALWAYS = ("sdxl", "sd3", "dit")
NAMES = [
    pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.slow)
    for name, tiny in TINY.items()
    if tiny.family.pipeline.__name__ in FAMILIES
]
"""One with betas, one with a flow, one of classes; the others take a minute together."""


def job(name: str, method: dict[str, Any]) -> JobSpec:
    text = not name.startswith("dit")
    return JobSpec.model_validate(
        {
            "teacher": name,
            "prompts": PROMPTS if text else None,
            "method": method,
            "preview_every": 1,
            "checkpoint_every": 1,
            "evaluation": {"samples": 100, "teacher_steps": 2},
        }
    )


@pytest.mark.parametrize("method", [DMD2, pytest.param(KD, marks=pytest.mark.slow)], ids=["dmd2", "kd"])
@pytest.mark.parametrize("name", NAMES)
def test_a_teachers_folder_becomes_a_students(
    name: str, method: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LARGEST_SAMPLE", math.inf)  # random weights make samples of any size
    TINY[name].make().save_pretrained(tmp_path / "teacher", safe_serialization=True)
    host = FolderHost(tmp_path / "run", torch.device("cpu"))
    stages.run(job(name, method), tmp_path / "teacher", host)
    folder = next((tmp_path / "run" / "students").glob("*-1"))
    record = json.loads(folder.with_suffix(".json").read_text())
    student = load_student(folder)
    assert isinstance(student, PipelineModel)
    assert record["text"] == student.text
    assert list(student.image_size) == record["image_size"]
    plain = TINY[name].family.pipeline.from_pretrained(folder)
    assert issubclass(TINY[name].family, FlowBackbone) == ("FlowMatch" in type(plain.scheduler).__name__)
    asked: Any = ["a bird"] if student.text else torch.tensor([3])
    images = student.generate(asked, [7], 1)
    assert images.shape == (1, *student.image_size)
    torch.testing.assert_close(images, student.plain(["a bird"] if student.text else [3], [7], 1), atol=1e-4, rtol=0)
    assert isinstance(plain, diffusers.DiffusionPipeline)


def checked(folder: Path) -> Path:
    """A Stable Diffusion 1 whose safety checker takes every image for unsafe."""
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = small | {"image_size": 16, "patch_size": 8, "projection_dim": 8}
    config = transformers.CLIPConfig(text_config=small, vision_config=vision, projection_dim=8)
    checker = StableDiffusionSafetyChecker(config)
    torch.nn.init.constant_(checker.concept_embeds_weights, -2.0)  # a cosine is above it
    pipe = TINY["stable-diffusion-1"].make()
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    pipe.register_modules(safety_checker=checker, feature_extractor=transformers.CLIPImageProcessorPil(**size))
    pipe.register_to_config(requires_safety_checker=True)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def test_a_safety_checker_comes_along_and_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "LARGEST_SAMPLE", math.inf)
    teacher = checked(tmp_path / "teacher")
    pipeline = diffusers.StableDiffusionPipeline
    blacked = pipeline.from_pretrained(teacher)("a cat", num_inference_steps=1, output_type="pt")
    assert blacked.nsfw_content_detected == [True]
    facts = inspect(StoredFolder(Storage(tmp_path.as_uri()), "teacher"))
    opened = load_student(teacher, PROMPTS)
    assert isinstance(opened, PipelineModel)
    assert opened.pipe.safety_checker is None
    held = [part for part in opened.pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert facts.footprint is not None
    assert facts.footprint.encoders + facts.parameters == sum(p.numel() for part in held for p in part.parameters())

    host = FolderHost(tmp_path / "run", torch.device("cpu"))
    low = {"lora_rank": 2, "fake_lora_rank": 2}
    stages.run(job("stable-diffusion-1", DMD2 | low), teacher, host)
    (folder,) = (tmp_path / "run" / "students").glob("*-1")
    student = pipeline.from_pretrained(folder)
    assert isinstance(student.safety_checker, StableDiffusionSafetyChecker)
    kept = student.safety_checker.state_dict()
    wanted = pipeline.from_pretrained(teacher).safety_checker.state_dict()
    assert all(torch.equal(kept[name], wanted[name]) for name in wanted)
    index = json.loads((folder / "model_index.json").read_text())
    assert index["requires_safety_checker"] is True
    assert student("a cat", num_inference_steps=1, output_type="pt").nsfw_content_detected == [True]


def test_no_watermark_is_put_into_images_that_are_compared() -> None:
    """As SDXL's pipeline does where a library for it is installed."""
    pipe = TINY["sdxl"].make()
    pipe.watermark = object()
    TINY["sdxl"].family.of(pipe, PROMPTS)
    assert pipe.watermark is None


def test_teacher_network_and_folder_are_on_the_device_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "LARGEST_SAMPLE", math.inf)
    TINY["sdxl"].make().save_pretrained(tmp_path / "teacher", safe_serialization=True)
    device = torch.device("cpu", 0)  # told apart from "cpu", where what is not on the device is
    here: weakref.WeakSet[Any] = weakref.WeakSet()
    most: list[int] = []

    plain, drawn_by = PipelineModel.to, finish.drawn_by

    def to(model: PipelineModel, where: torch.device | str) -> PipelineModel:
        (here.add if where == device else here.discard)(model)
        most.append(len(here))
        return plain(model, where)

    def drawn(*told: Any) -> Any:
        assert not here, "the trained network is there alone"
        return drawn_by(*told)

    monkeypatch.setattr(PipelineModel, "to", to)
    monkeypatch.setattr(finish, "drawn_by", drawn)
    low = {"lora_rank": 2, "fake_lora_rank": 2}
    stages.run(job("sdxl", DMD2 | low), tmp_path / "teacher", FolderHost(tmp_path / "run", device))
    assert max(most) == 1
    assert len(most) > 6


def test_encoders_and_vae_are_on_the_device_only_while_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TINY["sd3"].make().save_pretrained(tmp_path, safe_serialization=True)
    kept, moved = load_student(tmp_path, PROMPTS), load_student(tmp_path, PROMPTS, torch.device("cpu", 0), offload=True)
    assert isinstance(moved, PipelineModel)
    moves: list[tuple[str, bool]] = []
    for name, part in moved.pipe.components.items():
        if isinstance(part, torch.nn.Module):

            def to(device: Any, *_: Any, name: str = name) -> None:
                moves.append((name, torch.device(device).index == 0))

            monkeypatch.setattr(part, "to", to)
    images = moved.generate(torch.tensor([0, 1]), [1, 2], 2)
    assert moves == [("vae", True), ("vae", False)]
    moves.clear()
    again = moved.generate(PROMPTS[:2], [1, 2], 2)
    helpers = {"text_encoder", "text_encoder_2", "text_encoder_3", "vae"}
    assert {name for name, here in moves if here} == helpers, "new prompts are to be encoded"
    assert {name: here for name, here in moves} == dict.fromkeys(helpers, False), "all left again, the network stayed"
    wanted = kept.generate(torch.tensor([0, 1]), [1, 2], 2)
    assert torch.equal(images, wanted)
    torch.testing.assert_close(again, wanted, rtol=0, atol=1e-4)  # prompts encoded one by one, not all at once
