"""Options of how networks are run: they change nothing but speed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from service.methods.consistency import ConsistencySettings
from service.spec import Compute, JobSpec
from workers import stages
from workers.compute import hasten
from workers.diffusion.guidance import guided
from workers.methods.consistency import Consistency
from workers.models.unet2d import load_teacher
from workers.randomness import BatchRng

TEACHER = Path(stages.__file__).parent / "assets" / "digits" / "teacher"


def gradients(compute: Compute) -> tuple[Consistency, dict[str, Tensor]]:
    teacher = load_teacher(TEACHER)
    method = Consistency(ConsistencySettings(batch_size=4), guided(teacher, 2.0), teacher)
    hasten([method.teacher, *method.trainable.values(), *method.followers.values()], compute)
    rng = BatchRng(0, batch_size=4)
    method.loss("student", stages.image_source(teacher).batch(rng), 0, rng).loss.backward()
    return method, {name: p.grad for name, p in method.student.named_parameters() if p.grad is not None}


def test_channels_last_gives_the_same_gradients() -> None:
    _, plain = gradients(Compute())
    method, other = gradients(Compute(channels_last=True))
    assert method.student.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr]
    assert plain.keys() == other.keys()
    for name in plain:
        torch.testing.assert_close(other[name], plain[name], rtol=0, atol=1e-5)


def test_every_network_is_compiled_and_keeps_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    _, grads = gradients(Compute(compile=True))
    assert {type(module).__name__ for module in compiled} == {"UNet2DModel"}
    assert len(compiled) == 3, "teacher, student and its average"
    assert grads.keys() == dict(gradients(Compute())[0].student.named_parameters()).keys()


def test_compiling_for_a_cpu_is_refused() -> None:
    spec: dict[str, Any] = {"teacher": "digits", "method": {"kind": "consistency"}, "compute": {"compile": True}}
    with pytest.raises(ValidationError, match=r"needs resources\.gpus_per_worker above 0"):
        JobSpec.model_validate(spec)
    assert JobSpec.model_validate(spec | {"resources": {"gpus_per_worker": 1}}).compute.compile
