"""Each method against the exact solution of a Gaussian teacher, and the identities that end quality would not show."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.methods import ConsistencySettings, DMD2Settings, MethodSettings, ProgressiveSettings
from workers.data.source import Batch
from workers.diffusion.losses import distribution_gradient, follow
from workers.diffusion.paths import VPCosine
from workers.methods import consistency, dmd2, progressive
from workers.methods.base import Method
from workers.methods.registry import REGISTRY
from workers.models.denoiser import Denoiser
from workers.models.mixture import MixtureDenoiser, MlpDenoiser
from workers.randomness import BatchRng

MEAN, STD = 0.6, 0.5
SETTINGS: dict[str, MethodSettings] = {
    "progressive": ProgressiveSettings(first_steps=2, last_steps=1, rung_iterations=1),
    "consistency": ConsistencySettings(grid_steps=8, iterations=1),
    "dmd2": DMD2Settings(iterations=1),
}
every_method = pytest.mark.parametrize("kind", REGISTRY)


class Affine(Denoiser):
    """x0 = (gain(t) + dg) x + offset(t) + do, where gain and offset solve the method exactly: dg and do should be 0."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.path, self.prediction, self.shape, self.kind = VPCosine(), "x0", (1,), kind
        self.dg, self.do = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        gain, offset = (
            torch.tensor(c, dtype=x.dtype)[:, None] for c in zip(*map(self.solution, t.tolist()), strict=True)
        )
        return (gain + self.dg) * x + offset + self.do

    def solution(self, t: float) -> tuple[float, float]:
        if self.kind == "progressive":  # x0 that makes one DDIM step of two: solve x_s = a_s x0 + (s_s/s_t)(x - a_t x0)
            s = t - 0.5
            gain, offset = compose(ddim_map((t + s) / 2, s), ddim_map(t, (t + s) / 2))
            keep = sigma(s) / sigma(t)
            scale = 1 / (alpha(s) - keep * alpha(t))
            return scale * (gain - keep), scale * offset
        if self.kind == "consistency":  # the end of the teacher's DDIM trajectory on the grid
            total = (1.0, 0.0)
            for i in range(round(t * 8), 0, -1):
                total = compose(ddim_map(i / 8, (i - 1) / 8), total)
            return total
        return STD, MEAN  # dmd2: noise to data

    def with_conditions(self, copies: int) -> Denoiser:
        raise NotImplementedError


class GaussianTeacher(MixtureDenoiser):
    """N(MEAN, STD^2) in one dimension. What starts from it is `student`, what its fake score starts from is itself."""

    def __init__(self, student: Denoiser) -> None:
        super().__init__(torch.ones(1), torch.full((1, 1), MEAN), torch.tensor([STD]), network=student)

    def with_conditions(self, copies: int) -> Denoiser:
        return MixtureDenoiser(torch.ones(1), torch.full((1, 1), MEAN), torch.tensor([STD]))


def alpha(t: float) -> float:
    return math.cos(math.pi * t / 2)


def sigma(t: float) -> float:
    return math.sin(math.pi * t / 2)


def ddim_map(t: float, s: float) -> tuple[float, float]:
    """One DDIM step of the Gaussian teacher, x_s = gain x_t + offset."""
    a, e = alpha(t), sigma(t)
    variance = (a * STD) ** 2 + e**2
    d_gain, d_offset = a * STD**2 / variance, e**2 * MEAN / variance
    return alpha(s) * d_gain + sigma(s) * (1 - a * d_gain) / e, (alpha(s) - sigma(s) * a / e) * d_offset


def compose(after: tuple[float, float], before: tuple[float, float]) -> tuple[float, float]:
    return after[0] * before[0], after[0] * before[1] + after[1]


def build(kind: str) -> tuple[Method[Any], Affine]:
    method = REGISTRY[kind](SETTINGS[kind], teacher := GaussianTeacher(Affine(kind)), teacher)
    assert isinstance(method.student, Affine)
    return method, method.student


def gradient(kind: str, offset: float) -> float:
    """d loss/d offset of the student whose x0 is off by `offset` everywhere; so is what follows the student."""
    method, student = build(kind)
    with torch.no_grad():
        student.do += offset
        if isinstance(method, consistency.Consistency):
            method.target.do += offset  # type: ignore[operator]
        if isinstance(method, dmd2.DMD2):  # a fake score that has caught up with the samples
            method.fake.means += offset  # type: ignore[operator]
    rng = BatchRng(0, batch_size=8192)
    images = MEAN + STD * torch.randn(8192, 1, generator=torch.Generator().manual_seed(0))
    method.loss("student", Batch(images, None), 0, rng).loss.backward()
    assert student.do.grad is not None
    return student.do.grad.item()


def check_solution(kind: str) -> None:
    """The loss is at a minimum at the exact solution: no gradient there, and descent leads back to it."""
    scale = abs(gradient(kind, 0.2))
    assert scale > 1e-3
    assert abs(gradient(kind, 0.0)) < 0.01 * scale, "the exact solution is no stationary point"
    assert gradient(kind, 0.2) > 0, "descent leads away from the solution"
    assert gradient(kind, -0.2) < 0, "descent leads away from the solution"


@every_method
def test_the_exact_solution_is_the_minimum(kind: str) -> None:
    check_solution(kind)


def flipped_step(x: Tensor, x0: Tensor, t: Tensor, s: Tensor, path: VPCosine) -> Tensor:
    """DDIM with the sign of the noise wrong."""
    eps = (x - path.alpha(t).to(x)[:, None] * x0) / path.sigma(t).to(x)[:, None]
    return path.alpha(s).to(x)[:, None] * x0 - path.sigma(s).to(x)[:, None] * eps


def flipped_inversion(x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor, path: VPCosine) -> Tensor:
    keep = path.sigma(s) / path.sigma(t)
    return (x_s + keep[:, None] * x_t) / (path.alpha(s) - keep * path.alpha(t))[:, None]


FAULTS = [
    ("progressive", progressive, "jump", flipped_step),
    ("progressive", progressive, "invert_target", flipped_inversion),
    ("consistency", consistency, "jump", flipped_step),
    ("dmd2", dmd2, "distribution_gradient", lambda x, real, fake: distribution_gradient(x, fake, real)),
    ("dmd2", dmd2, "follow", lambda x, g: follow(x, -g)),
]


@pytest.mark.parametrize(("kind", "module", "name", "fault"), FAULTS, ids=lambda v: getattr(v, "__name__", str(v)))
def test_a_planted_sign_error_fails_the_check(
    kind: str, module: Any, name: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, fault)
    with pytest.raises(AssertionError):
        check_solution(kind)


def networks(kind: str, **settings: Any) -> Method[Any]:
    """The method on small networks, all of whose parameters ask for gradients: none but the student's may get one."""
    torch.manual_seed(0)
    teacher = MlpDenoiser().requires_grad_(True)
    method = REGISTRY[kind](SETTINGS[kind].model_copy(update=settings), teacher, teacher)
    for module in (*method.trainable.values(), *method.followers.values()):
        module.requires_grad_(True)
    return method


def points(n: int) -> Batch:
    return Batch(torch.randn(n, 2, generator=torch.Generator().manual_seed(5)), None)


@pytest.mark.parametrize(("kind", "segment"), [("progressive", 0), ("progressive", 1), ("consistency", 0), ("dmd2", 0)])
def test_the_target_carries_no_gradient(kind: str, segment: int) -> None:
    method = networks(kind)
    method.loss("student", points(64), segment, BatchRng(0, batch_size=64)).loss.backward()
    assert all(p.grad is not None for p in method.student.parameters())
    others = [method.teacher, *method.followers.values(), *(m for r, m in method.trainable.items() if r != "student")]
    assert all(p.grad is None for module in others for p in module.parameters())


def test_one_student_step_with_the_progressive_target_lands_where_two_teacher_steps_do() -> None:
    method = networks("progressive")
    assert isinstance(method, progressive.Progressive)
    path, batch = method.path, points(256)
    t = torch.linspace(0.02, 1, 256, dtype=torch.float64)
    for s in (torch.zeros_like(t), t / 2, t - 0.01):
        target = method.target(method.teacher, batch.images, t, s, batch)
        middle = (t + s) / 2
        one = progressive.jump(batch.images, method.teacher.predict(batch.images, t, None), t, middle, path)
        two = progressive.jump(one, method.teacher.predict(one, middle, None), middle, s, path)
        landed = progressive.jump(batch.images, target, t, s, path)
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
    method.student.raw = lambda x, t, labels: seen.append((x, t)) or inner(x, t, labels)  # type: ignore[method-assign,assignment]
    samples = method.generate(BatchRng(0, batch_size=8), with_gradient=True)
    assert samples.exit.tolist() == [0, 1, 2, 3] * 2
    assert [len(x) for x, _ in seen] == [2, 2, 2, 8], "a rollout without gradients, then one step of every exit"
    x, t = seen[-1]
    assert t.reshape(2, 4)[0].tolist() == [now for now, _ in method.times]
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
        part = Batch(batch.images[share * 4 : share * 4 + 4], None)
        halves.append(method.loss("student", part, 0, BatchRng(1, 2, 3, batch_size=8, share=share, shares=2)).loss)
    torch.testing.assert_close(sum(halves) / 2, total, rtol=1e-5, atol=1e-6)
