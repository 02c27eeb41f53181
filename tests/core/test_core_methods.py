"""Every method against the exact solution of a Gaussian teacher, and the identities that end quality would not show."""

from typing import Any

import pytest
import torch
from gaussian import Fault, check_solution
from rows import ROWS
from torch import Tensor

from workers.data.source import Batch
from workers.diffusion.losses import distribution_gradient, follow
from workers.methods import dmd2, progressive
from workers.methods.base import Method
from workers.methods.registry import REGISTRY
from workers.models.mixture import MlpDenoiser
from workers.randomness import BatchRng
from workers.templates import ladder
from workers.templates.regression import Draw

every_method = pytest.mark.parametrize("kind", REGISTRY)
with_a_solution = pytest.mark.parametrize("kind", [kind for kind, row in ROWS.items() if row.solution is not None])
FAULTS = [
    pytest.param(kind, fault, id=f"{kind}-{fault.name}-{i}")
    for kind, row in ROWS.items()
    for i, fault in enumerate(row.faults)
]


def test_every_method_has_its_row() -> None:
    assert ROWS.keys() == REGISTRY.keys()
    assert all(row.faults for row in ROWS.values())


@with_a_solution
def test_the_exact_solution_is_the_minimum(kind: str) -> None:
    check_solution(kind, ROWS[kind])


@pytest.mark.parametrize(("kind", "fault"), FAULTS)
def test_a_planted_fault_fails_the_check(kind: str, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault.module, fault.name, fault.by)
    with pytest.raises(AssertionError):
        check_solution(kind, ROWS[kind])


def networks(kind: str, **settings: Any) -> Method[Any]:
    """The method on small networks, all of whose parameters ask for gradients: none but the student's may get one."""
    torch.manual_seed(0)
    teacher = MlpDenoiser().requires_grad_(True)
    method = REGISTRY[kind](ROWS[kind].settings.model_copy(update=settings), teacher, teacher)
    for module in (*method.trainable.values(), *method.followers.values()):
        module.requires_grad_(True)
    return method


def points(n: int) -> Batch:
    images, noise = torch.randn(2, n, 2, generator=torch.Generator().manual_seed(5))
    return Batch(images, None, noise)


@pytest.mark.parametrize("segment", [0, 1])
@every_method
def test_the_target_carries_no_gradient(kind: str, segment: int) -> None:
    method = networks(kind)
    if segment >= len(method.segments()):
        return
    method.loss("student", points(64), segment, BatchRng(0, batch_size=64)).loss.backward()
    assert all(p.grad is not None for p in method.student.parameters())
    if ROWS[kind].through_scores:
        return
    others = [method.teacher, *method.followers.values(), *(m for r, m in method.trainable.items() if r != "student")]
    assert all(p.grad is None for module in others for p in module.parameters())


def test_one_student_step_with_the_progressive_target_lands_where_two_teacher_steps_do() -> None:
    method = networks("progressive")
    assert isinstance(method, progressive.Progressive)
    path, batch = method.path, points(256)
    t = torch.linspace(0.02, 1, 256, dtype=torch.float64)
    for s in (torch.zeros_like(t), t / 2, t - 0.01):
        at = Draw(batch.images, t, s, None, batch.images, batch.images, 0)
        with torch.no_grad():
            target = method.target(at)
        middle = (t + s) / 2
        one = ladder.jump(batch.images, method.teacher.predict(batch.images, t, None), t, middle, path)
        two = ladder.jump(one, method.teacher.predict(one, middle, None), middle, s, path)
        landed = ladder.jump(batch.images, target, t, s, path)
        torch.testing.assert_close(landed, two, rtol=0, atol=1e-5)


def test_the_dmd_gradient_is_the_normalised_difference_of_scores() -> None:
    x, real, fake = torch.randn(3, 5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x.requires_grad_(True)
    follow(x, distribution_gradient(x, real, fake)).sum().backward()
    for i in range(5):
        expected = (fake[i] - real[i]) / (x[i] - real[i]).abs().mean() / x[i].numel()
        torch.testing.assert_close(x.grad[i], expected.detach(), rtol=1e-4, atol=1e-7)


def test_the_fake_turn_trains_the_fake_score_alone() -> None:
    method = networks("dmd2", steps=4)
    method.loss("fake", None, 0, BatchRng(0, batch_size=64)).loss.backward()
    assert all(p.grad is None for p in method.student.parameters())
    assert all(p.grad is not None for p in method.trainable["fake"].parameters())


def test_backward_simulation_trains_on_what_sampling_sees() -> None:
    method = networks("dmd2", steps=4)
    assert isinstance(method, dmd2.DMD2)
    seen: list[tuple[Tensor, Tensor]] = []
    method.student.register_forward_hook(lambda *_: None)
    inner = method.student.raw
    method.student.raw = lambda x, t, labels, s=None: seen.append((x, t)) or inner(x, t, labels)  # type: ignore[method-assign,assignment]
    samples = method.generate(BatchRng(0, batch_size=8), with_gradient=True)
    assert samples.exit.tolist() == [0, 1, 2, 3] * 2
    assert [len(x) for x, _ in seen] == [2, 2, 2, 8], "a rollout without gradients, then one step of every exit"
    x, t = seen[-1]
    assert t.reshape(2, 4)[0].tolist() == [now for now, _ in method.exits]
    for exit, (before, _) in enumerate(seen[:-1]):
        assert torch.equal(x.reshape(2, 4, 2)[:, exit], before)
    again = method.generate(BatchRng(0, batch_size=8), with_gradient=False)
    torch.testing.assert_close(again.x, samples.x.detach())
    assert again.x.grad_fn is None or not again.x.requires_grad


@every_method
def test_a_share_sees_its_part_of_the_whole_batch(kind: str) -> None:
    method = networks(kind, **({"steps": 2} if kind == "dmd2" else {}))
    whole, batch = BatchRng(1, 2, 3, batch_size=8), points(8)
    total = method.loss("student", batch, 0, whole).loss
    halves = []
    for share in range(2):
        mine = slice(share * 4, share * 4 + 4)
        assert batch.noise is not None
        part = Batch(batch.images[mine], None, batch.noise[mine])
        halves.append(method.loss("student", part, 0, BatchRng(1, 2, 3, batch_size=8, share=share, shares=2)).loss)
    torch.testing.assert_close(sum(halves) / 2, total, rtol=1e-5, atol=1e-6)
