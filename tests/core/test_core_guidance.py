"""Methods that learn guidance, against a teacher of two classes whose guided denoiser is known in closed form."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gaussian import Affinity, alpha, compose, sigma, x0_of
from torch import Tensor, nn

from service.methods.guidance import GuidanceSettings
from service.methods.snapfusion import SnapFusionSettings
from workers.data.source import Batch
from workers.diffusion.guidance import Guided, guided, guided_prediction, unguided
from workers.diffusion.paths import VPCosine
from workers.methods import snapfusion
from workers.methods.base import Method
from workers.methods.guidance import Guidance
from workers.methods.snapfusion import SnapFusion
from workers.models.denoiser import Denoiser
from workers.models.mixture import MlpDenoiser, six_modes
from workers.randomness import BatchRng
from workers.templates import told_guidance

MEANS, STDS = (0.9, -0.5, 0.1), (0.4, 0.3, 0.8)
"""Of the two classes, and of no class."""
N = 1024


def x0_at(t: float, label: int) -> Affinity:
    variance = (alpha(t) * STDS[label]) ** 2 + sigma(t) ** 2
    return alpha(t) * STDS[label] ** 2 / variance, sigma(t) ** 2 * MEANS[label] / variance


def mix(c: Affinity, u: Affinity, scale: float) -> Affinity:
    return u[0] + scale * (c[0] - u[0]), u[1] + scale * (c[1] - u[1])


def step(x0: Affinity, t: float, s: float) -> Affinity:
    keep = sigma(s) / sigma(t)
    part = alpha(s) - keep * alpha(t)
    return part * x0[0] + keep, part * x0[1]


class Classes(Denoiser):
    """x0 = gain(t, s, label) x + offset(t, s, label) + off[label]; off should be 0."""

    num_classes = null_label = 2

    def __init__(self, solution: Callable[[float, float, int], Affinity], knows_target: bool = False) -> None:
        super().__init__()
        self.path, self.prediction, self.shape = VPCosine(), "x0", (1,)
        self.solution, self.knows_target = solution, knows_target
        self.off = nn.Parameter(torch.zeros(3))
        self.student: Denoiser | None = None

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        assert labels is not None
        asked = zip(t.tolist(), [0.0] * len(t) if s is None else s.tolist(), labels.tolist(), strict=True)
        x0 = torch.tensor([self.solution(*a) for a in asked], dtype=x.dtype)
        return x0[:, :1] * x + x0[:, 1:] + self.off[labels][:, None]

    def trainable_copy(self) -> Denoiser:
        assert self.student is not None
        return self.student

    def with_target(self) -> Denoiser:
        return self.trainable_copy()

    def with_conditions(self, copies: int) -> Denoiser:
        raise NotImplementedError


def teacher(student: Classes | None = None) -> Classes:
    found = Classes(lambda t, s, label: x0_at(t, label)).requires_grad_(False)
    found.student = student
    return found


def batch() -> Batch:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % 2
    images = torch.tensor(MEANS)[labels] + torch.tensor(STDS)[labels] * torch.randn(N, generator=rng)
    return Batch(images[:, None], labels)


def gradient(make: Callable[[], tuple[Method[Any], Classes]], off: tuple[float, float, float]) -> Tensor:
    method, student = make()
    with torch.no_grad():
        student.off += torch.tensor(off)
    method.loss("student", batch(), 0, BatchRng(0, batch_size=N)).loss.backward()
    assert student.off.grad is not None
    return student.off.grad


def check_labels(make: Callable[[], tuple[Method[Any], Classes]], labels: tuple[int, ...]) -> None:
    """At the solution no gradient; away from it, for one label after another, descent leads back."""
    at_solution = gradient(make, (0, 0, 0)).abs().max()
    for label in labels:
        off = [0.0, 0.0, 0.0]
        off[label] = 0.2
        there = gradient(make, (off[0], off[1], off[2]))[label]
        assert there > 1e-3
        assert at_solution < 0.01 * there, "the exact solution is no stationary point"
        off[label] = -0.2
        assert gradient(make, (off[0], off[1], off[2]))[label] < 0, "descent leads away from the solution"


# The distillation of guidance


def guidance_method() -> tuple[Method[Any], Classes]:
    settings = GuidanceSettings(low_guidance=0.5, high_guidance=2.5, guidance_scale=1.5)

    def solution(t: float, told: float, label: int) -> Affinity:
        return mix(x0_at(t, label), x0_at(t, 2), 0.5 + 2 * told)

    student = Classes(solution, knows_target=True)
    return Guidance(settings, guided(teacher(student), 1.5), guided(teacher(student), 1.5)), student


def swapped(network: Denoiser, x: Tensor, t: Tensor, labels: Tensor, scale: Tensor, *rest: Any) -> Tensor:
    """c and u in each other's place."""
    return guided_prediction(network, x, t, labels, 1 - scale, *rest)


def off_by_one(network: Denoiser, x: Tensor, t: Tensor, labels: Tensor, scale: Tensor, *rest: Any) -> Tensor:
    """(1 + g) c - g u: the other convention for g."""
    return guided_prediction(network, x, t, labels, 1 + scale, *rest)


def test_guidance_is_learnt_at_every_scale() -> None:
    check_labels(guidance_method, (0, 1))


@pytest.mark.parametrize(
    ("module", "name", "by"),
    [
        (told_guidance, "guided_prediction", swapped),
        (told_guidance, "guided_prediction", off_by_one),
        (told_guidance, "unguided", lambda denoiser: denoiser),  # guided twice
    ],
)
def test_a_fault_in_guidance_shows(module: Any, name: str, by: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, name, by)
    with pytest.raises(AssertionError):
        check_labels(guidance_method, (0, 1))


def test_the_exported_student_is_told_the_settings_scale() -> None:
    method, _ = guidance_method()
    asked: list[list[tuple[float, float]]] = []
    average = SimpleNamespace(baked=lambda steps: asked.append(steps) or "baked")
    ((spec, network),) = method.students(0, average)  # type: ignore[arg-type]
    assert network == "baked"
    assert spec.kind == "ddim"
    assert spec.steps == (16,)
    assert [told for _, told in asked[0]] == [0.5] * 16, "1.5 lies midway from 0.5 to 2.5"
    assert [t for t, _ in asked[0]] == [t for t, _ in spec.times(16)]


def test_the_scales_of_a_batch_fill_the_range() -> None:
    method, _ = guidance_method()
    at = method.draw(batch(), 0, BatchRng(0, batch_size=N))  # type: ignore[attr-defined]
    assert 0.5 <= at.scale.min() < 0.51 < 2.49 < at.scale.max() < 2.5
    assert 0 < at.t.min() < 0.01 < 0.99 < at.t.max() <= 1
    assert abs(torch.corrcoef(torch.stack([at.scale, at.t]))[0, 1].item()) < 0.15


# SnapFusion


def snapfusion_method(cfg_probability: float) -> tuple[Method[Any], Classes]:
    """At one scale there is a student whose plain step and whose guided step both land where the teacher's two do."""
    scale = 2.0
    settings = SnapFusionSettings(
        first_steps=2, last_steps=1, cfg_probability=cfg_probability, low_guidance=scale, high_guidance=scale
    )

    def two_steps(x0: Callable[[float], Affinity], t: float) -> Affinity:
        middle, s = t - 0.25, t - 0.5
        return x0_of(compose(step(x0(middle), middle, s), step(x0(t), t, middle)), t, s)

    def solution(t: float, _: float, label: int) -> Affinity:
        if label < 2:
            return two_steps(lambda u: x0_at(u, label), t)
        raise AssertionError("the two classes have different null answers; see `Null`")

    class Null(Classes):
        """Its answer without a class is the one that completes the guidance of the image's own class."""

        def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
            assert labels is not None
            if not bool((labels == 2).any()):
                return super().raw(x, t, labels, s)
            half = len(x) // 2
            c = super().raw(x[:half], t[:half], labels[:half])
            wanted = torch.tensor(
                [
                    two_steps(lambda u, k=k: mix(x0_at(u, k), x0_at(u, 2), scale), now)
                    for now, k in zip(t[:half].tolist(), labels[:half].tolist(), strict=True)
                ]
            )
            guided_x0 = wanted[:, :1] * x[:half] + wanted[:, 1:]
            exact_c = c.detach() - self.off.detach()[labels[:half]][:, None]
            u = (scale * exact_c - guided_x0) / (scale - 1) + self.off[2]
            return torch.cat([c, u])

    student = Null(solution)
    return SnapFusion(settings, teacher(student), teacher(student)), student


def test_the_plain_batches_of_snapfusion_are_progressive_ones() -> None:
    check_labels(lambda: snapfusion_method(0), (0, 1))
    assert gradient(lambda: snapfusion_method(0), (0.2, 0.2, 0.2))[2] == 0, "the null class is not asked"


def test_the_guided_step_of_snapfusion_lands_where_two_guided_steps_do() -> None:
    check_labels(lambda: snapfusion_method(1), (0, 1))
    pull = gradient(lambda: snapfusion_method(1), (0, 0, 0.2))
    assert pull[2] > 1e-3, "1 - g is negative, and the loss is square: the null class is led back as well"


def honest_x0(self: SnapFusion, network: Denoiser, x: Tensor, t: Tensor, at: Any) -> Tensor:
    assert at.labels is not None
    assert at.scale is not None
    return guided_prediction(network, x, t, at.labels, at.scale)


def plain_student(self: SnapFusion, network: Denoiser, x: Tensor, t: Tensor, at: Any) -> Tensor:
    """Guidance on the teacher's side alone."""
    return network.predict(x, t, at.labels) if network is self.student else honest_x0(self, network, x, t, at)


def plain_teacher(self: SnapFusion, network: Denoiser, x: Tensor, t: Tensor, at: Any) -> Tensor:
    return honest_x0(self, network, x, t, at) if network is self.student else network.predict(x, t, at.labels)


@pytest.mark.parametrize(
    ("module", "name", "by"),
    [
        (snapfusion, "guided_prediction", swapped),
        (snapfusion, "guided_prediction", off_by_one),
        (SnapFusion, "x0", plain_student),
        (SnapFusion, "x0", plain_teacher),
    ],
)
def test_a_fault_in_snapfusion_shows(module: Any, name: str, by: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, name, by)
    with pytest.raises(AssertionError):
        check_labels(lambda: snapfusion_method(1), (0, 1))


def test_a_batch_is_guided_or_plain_as_a_whole_and_as_often_as_asked() -> None:
    method, _ = snapfusion_method(0.3)
    whole = Batch(torch.randn(8, 1), torch.arange(8) % 2)
    half = Batch(whole.images[:4], torch.arange(4) % 2)
    kinds = []
    for number in range(300):
        at = method.draw(whole, 0, BatchRng(number, batch_size=8))  # type: ignore[attr-defined]
        shares = [
            method.draw(half, 0, BatchRng(number, batch_size=8, share=i, shares=2))  # type: ignore[attr-defined]
            for i in range(2)
        ]
        kinds.append(at.scale is not None)
        assert [share.scale is not None for share in shares] == [kinds[-1]] * 2
        if kinds[-1]:
            assert torch.equal(torch.cat([share.scale for share in shares]), at.scale)
    assert math.isclose(sum(kinds) / 300, 0.3, abs_tol=0.08)


# What is refused


@pytest.mark.parametrize(("method", "settings"), [(SnapFusion, SnapFusionSettings()), (Guidance, GuidanceSettings())])
def test_a_teacher_without_a_null_class_is_refused_with_the_fix(method: Any, settings: Any) -> None:
    unconditional = six_modes(MlpDenoiser())
    named = "cfg_probability to 0" if method is SnapFusion else "low_guidance to high_guidance is 1 to 3"
    with pytest.raises(ValueError, match=rf"{named}.*class-conditional teacher"):
        method(settings, unconditional, unconditional)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: SnapFusionSettings(guidance_scale=2), "guidance_scale"),
        (lambda: SnapFusionSettings(low_guidance=4, high_guidance=3), "low_guidance"),
        (lambda: SnapFusionSettings(first_steps=6, last_steps=1), "first_steps"),
        (lambda: GuidanceSettings(guidance_scale=4), "guidance_scale"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make: Callable[[], Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()


def test_unguided_takes_guidance_off() -> None:
    inner = teacher()
    assert unguided(guided(inner, 1)) is inner
    assert isinstance(guided(inner, 2), Guided)
    assert unguided(guided(inner, 2)) is inner
