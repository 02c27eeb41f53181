"""From a pipeline's folder to a student's, and plain diffusers on it: every family, two methods of different shape."""

import json
import math
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tiny_all import TINY

from service.spec import JobSpec
from workers import stages, trainer
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
