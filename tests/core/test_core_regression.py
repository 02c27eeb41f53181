"""Identities of the regressions that the Gaussian oracle, which looks at means, would not show."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from service.methods.boot import BootSettings
from service.methods.kd import KDSettings
from service.methods.tract import TractSettings
from workers.data.source import Batch
from workers.diffusion.convert import Prediction
from workers.diffusion.paths import VPCosine, VPDiscrete
from workers.diffusion.sampler import SamplerSpec
from workers.diffusion.solver import jump
from workers.methods.base import Method
from workers.methods.boot import Boot
from workers.methods.kd import KD
from workers.methods.tract import Tract
from workers.models.mixture import MlpDenoiser, six_modes
from workers.randomness import BatchRng
from workers.templates import regression

N = 256


def boot(**settings: Any) -> Boot:
    torch.manual_seed(0)
    method = Boot(BootSettings(**settings), six_modes(MlpDenoiser()), six_modes(MlpDenoiser()))
    for parameter in method.student.parameters():  # so that it listens to its target time
        torch.nn.init.normal_(parameter, std=0.1)
    return method


def tract() -> Tract:
    torch.manual_seed(0)
    teacher = six_modes(MlpDenoiser())
    return Tract(TractSettings(teacher_steps=8, first_steps=2, last_steps=1), teacher, teacher)


def points() -> Batch:
    images, noise = torch.randn(2, N, 2, generator=torch.Generator().manual_seed(5))
    return Batch(images, None, noise)


def check_the_signal_ode(method: Boot) -> None:
    """One DDIM step from the noise with the target lands where the teacher goes from the student's own point."""
    at = method.draw(None, 0, BatchRng(0, batch_size=N))
    one = torch.ones(N, dtype=torch.float64)
    with torch.no_grad():
        target = method.target(at)
        inner = at.t < 1
        y = method.student.predict(at.x, one, None, s=at.t)
        x_t = torch.where(inner[:, None], jump(at.x, y, one, at.t, method.path), at.x)
        x0 = method.teacher.predict(x_t, at.t, None)
    landed = jump(at.x, target, one, at.s, method.path)
    torch.testing.assert_close(landed, jump(x_t, x0, at.t, at.s, method.path), rtol=0, atol=1e-5)
    boundary = at.s == 1
    assert 0 < int(boundary.sum()) < N / 2
    torch.testing.assert_close(target[boundary], x0[boundary])


def test_boot_follows_the_signal_ode() -> None:
    check_the_signal_ode(boot(grid_steps=8))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda c, t, s: 1 - c,
        lambda c, t, s: torch.where(t < 1, -c, c),
        lambda c, t, s: torch.where((s > 0) & (t < 1), (t - s) / (t * (1 - s)), c),  # of another path
    ],
)
def test_a_wrong_weight_leaves_the_signal_ode(wrong: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Boot.coefficient
    monkeypatch.setattr(Boot, "coefficient", lambda self, t, s: wrong(honest(self, t, s), t, s))
    with pytest.raises(AssertionError):
        check_the_signal_ode(boot(grid_steps=8))


def test_the_weight_of_boot_is_one_minus_a_ratio_of_signal_to_noise() -> None:
    method, path = boot(), VPCosine()
    t = torch.linspace(0.1, 0.95, 20, dtype=torch.float64)
    s = t - 0.05
    log_odds = torch.log(path.sigma(s) / path.alpha(s)) - torch.log(path.sigma(t) / path.alpha(t))
    torch.testing.assert_close(method.coefficient(t, s), 1 - torch.exp(log_odds))
    assert method.coefficient(torch.ones(1, dtype=torch.float64), t[-1:]).item() == 1, "all of it, where alpha is 0"


def check_the_gradient(method: Method[Any]) -> None:
    """That of a constant target."""
    assert isinstance(method, regression.Regression)
    method.loss("student", None, 0, BatchRng(0, batch_size=N)).loss.backward()
    found = [parameter.grad for parameter in method.student.parameters()]
    method.student.zero_grad()
    at = method.draw(None, 0, BatchRng(0, batch_size=N))
    target = method.target(at).detach()
    method.distance(method.output(at), target, at).mean().backward()
    for gradient, parameter in zip(found, method.student.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def test_the_students_own_answer_is_a_target_without_gradient() -> None:
    check_the_gradient(boot())


def test_a_missing_stop_gradient_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "torch", SimpleNamespace(no_grad=nullcontext))
    with pytest.raises(AssertionError):
        check_the_gradient(boot())


def check_the_segment(method: Tract) -> None:
    """The target lands at the segment's end: by the teacher to the next point, and by the self-teacher from there."""
    at = method.draw(points(), 0, BatchRng(0, batch_size=N))
    assert set(zip(at.t.tolist(), at.s.tolist(), strict=True)) == {(i / 8, 0.5 if i > 4 else 0) for i in range(1, 9)}
    next_t = torch.maximum(at.t - 1 / 8, at.s)
    with torch.no_grad():
        target = method.target(at)
        x = jump(at.x, method.teacher.predict(at.x, at.t, None), at.t, next_t, method.path)
        inner = (next_t > at.s)[:, None]
        rest = jump(x, method.self_teacher.predict(x, next_t, None), next_t, at.s, method.path)
    landed = jump(at.x, target, at.t, at.s, method.path)
    torch.testing.assert_close(landed, torch.where(inner, rest, x), rtol=0, atol=1e-5)


def test_tract_closes_a_segment_in_one_step() -> None:
    check_the_segment(tract())


@pytest.mark.parametrize("step", [1 / 16, 1 / 4])
def test_a_wrong_small_step_of_tract_shows(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tract, "small_step", lambda self, segment: step)
    with pytest.raises(AssertionError):
        check_the_segment(tract())


def test_a_phase_of_tract_is_the_teacher_of_the_next() -> None:
    method = tract()
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter += 0.1
    method.next_segment()
    at = method.draw(points(), 1, BatchRng(0, batch_size=N))
    assert set(zip(at.t.tolist(), at.s.tolist(), strict=True)) == {(1.0, 0.0), (0.5, 0.0)}
    with torch.no_grad():
        last = at.t == 0.5
        expected = method.student.predict(at.x, at.t, None)
        torch.testing.assert_close(method.target(at)[last], expected[last], rtol=0, atol=1e-5)


@pytest.mark.parametrize("timesteps", [1000, 250])
def test_the_times_of_tract_are_those_of_the_students_sampler(timesteps: int) -> None:
    method = tract()
    method.path = VPDiscrete(torch.linspace(0.999, 0.01, timesteps))
    t, s = method.times(BatchRng(0, batch_size=64), 0)
    asked = SamplerSpec("ddim", (2,), timesteps).times(2)
    assert set(asked) <= {(round(a, 9), b) for a, b in zip(t.tolist(), s.tolist(), strict=True)}


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_kd_is_asked_at_the_noise_alone(prediction: Prediction) -> None:
    """Where t = 1 still holds a trace of the image, that trace would give the image away."""
    path, student = VPDiscrete(torch.linspace(0.999, 0.05, 1000)), MlpDenoiser()
    student.path, student.prediction = path, prediction
    method, batch = KD(KDSettings(), student, student), points()
    at = method.draw(batch, 0, BatchRng(0, batch_size=N))
    assert torch.equal(at.x, batch.noise if batch.noise is not None else at.x * 0)
    assert at.t.unique().tolist() == [1.0]
    assert torch.equal(method.target(at), batch.images)
    assert method.loss("student", batch, 0, BatchRng(0, batch_size=N)).loss.isfinite()


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"teacher_steps": 30}, "teacher_steps"), ({"first_steps": 4, "last_steps": 3}, "first_steps")],
)
def test_segments_of_tract_are_whole(settings: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=rf"{named} \("):
        TractSettings(**settings)
    assert TractSettings(first_steps=2, last_steps=2).student_steps() == [[2]]
