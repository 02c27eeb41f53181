"""Teachers saved in 16 bits, as most are published: they are opened in float32, and so are their students."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_all import TINY

from workers.families.registry import FAMILIES
from workers.pipeline_model import PipelineModel

NAMES = [name for name, tiny in TINY.items() if tiny.family.pipeline.__name__ in FAMILIES]


def precisions(pipe: Any) -> set[torch.dtype]:
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    return {parameter.dtype for module in modules for parameter in module.parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_all_of_it_is_float32(name: str, tmp_path: Path) -> None:
    family, saved = TINY[name].family, TINY[name].make().to(torch.bfloat16)
    assert precisions(saved) == {torch.bfloat16}
    saved.save_pretrained(tmp_path / "teacher", safe_serialization=True)
    teacher = PipelineModel(family, tmp_path / "teacher", (), ["a cat", "two dogs"])
    assert precisions(teacher.pipe) == {torch.float32}
    images = teacher.generate(torch.tensor([0, 1]), [0, 1], 2, 2.0)
    assert images.isfinite().all()
    if teacher.text:
        by_prompt = teacher.generate(["a cat", "two dogs"], [0, 1], 2, 2.0)
        torch.testing.assert_close(by_prompt, images, atol=1e-4, rtol=1e-4)
    teacher.pipe.save_pretrained(tmp_path / "student", safe_serialization=True)
    assert precisions(family.pipeline.from_pretrained(tmp_path / "student")) == {torch.float32}
