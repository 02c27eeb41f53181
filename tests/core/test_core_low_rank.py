"""Low-rank updates: they start as no change, train alone, and are gone from what is exported."""

from typing import Any

import pytest
import torch
from test_core_sampler import small_folder
from torch import Tensor

from service.methods.lcm import LCMSettings
from workers.methods.lcm import LCM
from workers.models.low_rank import LowRank, merged, with_low_rank
from workers.models.unet2d import UNetDenoiser, load_teacher

X = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
T = torch.tensor([0.2, 0.6, 1.0], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2])


@pytest.fixture
def teacher(tmp_path: Any) -> UNetDenoiser:
    return load_teacher(small_folder(tmp_path))


def moved(network: UNetDenoiser) -> UNetDenoiser:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


@torch.no_grad()
def answer(network: UNetDenoiser) -> Tensor:
    return network.raw(X, T, LABELS)


def test_a_new_update_changes_nothing_and_is_all_there_is_to_train(teacher: UNetDenoiser) -> None:
    student = with_low_rank(teacher.frozen_copy(), 2)
    assert torch.equal(answer(student), answer(teacher))  # type: ignore[arg-type]
    numbers = sum(p.numel() for p in student.parameters())
    assert numbers == sum(p.numel() for m in student.modules() if isinstance(m, LowRank) for p in (m.a, m.b))
    assert numbers < sum(p.numel() for p in teacher.parameters())


def test_a_merged_network_is_a_stock_one_with_the_same_answers(teacher: UNetDenoiser) -> None:
    student = moved(with_low_rank(teacher.frozen_copy(), 2))  # type: ignore[arg-type]
    plain = merged(student)
    assert plain.state_dict().keys() == teacher.state_dict().keys()
    torch.testing.assert_close(answer(plain), answer(student), rtol=0, atol=1e-5)
    assert (answer(plain) - answer(teacher)).abs().max() > 0.05
    assert any(isinstance(module, LowRank) for module in student.modules()), "the student goes on training"
    again = teacher.frozen_copy()
    again.load_state_dict(plain.state_dict())
    assert torch.equal(answer(again), answer(plain))  # type: ignore[arg-type]
    assert merged(teacher) is teacher


def test_what_lcm_leaves_with_low_rank_is_in_the_teachers_format(teacher: UNetDenoiser) -> None:
    method = LCM(LCMSettings(lora_rank=2), teacher, teacher)
    assert {name.rsplit(".", 1)[1] for name, _ in method.student.named_parameters()} == {"a", "b"}
    ((spec, network),) = method.students(0, moved(method.student.frozen_copy()))  # type: ignore[arg-type]
    assert spec.steps == (1, 2, 4)
    assert network.state_dict().keys() == teacher.state_dict().keys()
    before, after = teacher.state_dict(), network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    layers = {name for name in before if name.endswith("weight") and before[name].ndim > 1}
    told = "unet.time_embedding.linear_2.bias"  # takes in what the student is told of its guidance
    assert changed == layers - {"unet.class_embedding.weight"} | {told}
