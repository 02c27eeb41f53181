"""What each score method weights a difference of scores with, against closed forms; and where its noise comes from."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from gaussian import MEAN, STD, Fault, flow_map, make
from rows import ROWS
from rows.scores import ExactCritic
from torch import Tensor, nn

from service.methods.sdi import SDISettings
from service.methods.swiftbrush import SwiftBrushSettings
from service.methods.vsd import VSDSettings
from workers.diffusion.losses import noise_gradient
from workers.diffusion.paths import RectifiedFlow, VPCosine, expand
from workers.diffusion.timesteps import log_normal
from workers.methods import diff_instruct, f_distill, sdi, sds, swiftbrush, vsd
from workers.methods.registry import REGISTRY
from workers.models.counter import Counter
from workers.models.denoiser import Denoiser
from workers.models.mixture import MlpDenoiser
from workers.models.running_mean import RunningMean
from workers.randomness import BatchRng
from workers.templates.scores import T_MAX, T_MIN, Compared, Samples

SIZE = 4096

# What the samples descend, for the scores and the noises (teacher's, other) at alpha and sigma.
Expected = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
GRADIENTS: dict[str, Expected] = {
    "diff_instruct": lambda s_p, s_q, e_p, e_q, a, e: e**2 / a * (s_q - s_p),
    "swiftbrush": lambda s_p, s_q, e_p, e_q, a, e: e**2 * (e_p - e_q),
    "vsd": lambda s_p, s_q, e_p, e_q, a, e: e**2 * (e_p - e_q),
    "sds": lambda s_p, s_q, e_p, e_q, a, e: e**2 * (e_p - e_q),
    "sdi": lambda s_p, s_q, e_p, e_q, a, e: e / a * (e_p - e_q),
}
WRONG_WEIGHTS = {
    "diff_instruct": Fault(diff_instruct.DiffInstruct, "gradient", lambda self, at: 2 * (at.fake - at.real)),
    "swiftbrush": Fault(swiftbrush, "noise_gradient", lambda real, fake, t, path: fake - real),
    "vsd": Fault(vsd, "noise_gradient", lambda real, fake, t, path: expand(path.sigma(t), real) * (fake - real)),
    "sds": Fault(sds, "noise_gradient", lambda real, fake, t, path: noise_gradient(fake, real, t, path)),
}


def check_gradient(kind: str) -> None:
    method, _ = make(kind, ROWS[kind])
    x, eps, fake = torch.randn(3, 64, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.05, 0.95, 64, dtype=torch.float64)
    alpha, sigma = method.path.alpha(t)[:, None], method.path.sigma(t)[:, None]
    x_t = alpha * x + sigma * eps
    if kind == "sds":
        fake = x  # so that the other noise is the injected one
    samples = Samples(x, None, torch.zeros(64, dtype=torch.int64))
    real = method.teacher.predict(x_t, t, None)
    (s_p, s_q), (e_p, e_q) = (
        [convert(x0) for x0 in (real, fake)]
        for convert in (
            lambda x0: (alpha * x0 - x_t) / sigma**2,
            lambda x0: (x_t - alpha * x0) / sigma,
        )
    )
    assert kind != "sds" or torch.allclose(e_q, eps)
    found = method.gradient(Compared(samples, x_t, t, real, fake))  # type: ignore[attr-defined]
    torch.testing.assert_close(found, GRADIENTS[kind](s_p, s_q, e_p, e_q, alpha, sigma), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", GRADIENTS)
def test_samples_descend_the_weighted_difference_of_the_paper(kind: str) -> None:
    check_gradient(kind)


@pytest.mark.parametrize("kind", WRONG_WEIGHTS)
def test_a_wrong_weight_is_found(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = WRONG_WEIGHTS[kind]
    monkeypatch.setattr(fault.module, fault.name, fault.by)
    with pytest.raises(AssertionError):
        check_gradient(kind)


def gain_gradient(kind: str) -> float:
    """d loss/d gain of the student that makes exactly the teacher's distribution."""
    row = ROWS[kind]
    method, student = make(kind, row)
    student.solution = lambda t, s: (STD, MEAN)
    row.follow(method, 0.0)
    method.loss("student", None, 0, BatchRng(0, batch_size=SIZE)).loss.backward()
    assert student.dg.grad is not None
    return student.dg.grad.item()


@pytest.mark.parametrize("kind", ["diff_instruct", "swiftbrush", "vsd"])
def test_with_a_score_of_the_samples_the_teachers_distribution_is_at_rest(kind: str) -> None:
    assert abs(gain_gradient(kind)) < 1e-6


@pytest.mark.parametrize("kind", ["sds", "sdi"])
def test_without_one_the_samples_contract(kind: str) -> None:
    assert gain_gradient(kind) > 0.05


# f-distill


DIVERGENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "reverse_kl": lambda r: -r.log(),
    "softened_rkl": lambda r: (r + 1) * ((r + 1) / (2 * r)).log(),
    "js": lambda r: r * r.log() - (r + 1) * ((r + 1) / 2).log(),
    "squared_hellinger": lambda r: (1 - r.sqrt()) ** 2,
    "forward_kl": lambda r: r * r.log(),
    "jeffreys": lambda r: (r - 1) * r.log(),
}
"""f of E_q f(p/q)."""


def check_divergence(name: str) -> None:
    """E_q h(r) (s_q - s_p) is the derivative of the divergence in the mean of q; p and q Gaussians, on a fine grid."""
    x = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    mean = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def log_density(mean: Tensor | float, std: float) -> Tensor:
        return -0.5 * ((x - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))

    log_p, log_q = log_density(0.0, 1.0), log_density(mean, 0.9)
    r, step = (log_p - log_q).exp(), float(x[1] - x[0])
    (expected,) = torch.autograd.grad((log_q.exp() * DIVERGENCES[name](r)).sum() * step, mean)
    s_p, s_q, density = -x, -(x - 0.4) / 0.81, log_q.detach().exp()
    found = (density * f_distill.H[name](r.detach()) * (s_q - s_p)).sum() * step  # type: ignore[index]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_h_gives_the_gradient_of_its_divergence(name: str) -> None:
    assert set(DIVERGENCES) == set(f_distill.H)
    check_divergence(name)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_another_h_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"js": "softened_rkl"}.get(name, "js")
    monkeypatch.setitem(f_distill.H, name, f_distill.H[other])  # type: ignore[index,misc]
    with pytest.raises(AssertionError):
        check_divergence(name)


def test_the_ratio_is_that_of_the_densities_and_clipped() -> None:
    method, _ = make("f_distill", ROWS["f_distill"])
    assert isinstance(method, f_distill.FDistill)
    method.gan.critic = ExactCritic(0.3)
    x = torch.linspace(-2, 4, 50)[:, None]
    t = torch.full((50,), 0.3, dtype=torch.float64)
    samples = Samples(x, None, torch.zeros(50, dtype=torch.int64))
    alpha, sigma = float(method.path.alpha(t)[0]), float(method.path.sigma(t)[0])
    variance = (alpha * STD) ** 2 + sigma**2
    real, fake = ((-((x - alpha * m) ** 2) / (2 * variance)).exp()[:, 0] for m in (MEAN, MEAN + 0.3))
    found = method.ratio(Compared(samples, x, t, x, x))
    torch.testing.assert_close(found, (real / fake).clamp(0.1, 20), rtol=1e-4, atol=1e-6)


def test_the_running_mean_makes_the_mean_weight_one_at_every_noise_level() -> None:
    mean, rng = RunningMean(), torch.Generator().manual_seed(0)
    resumed = RunningMean()
    for step in range(60):
        for _micro_batch in range(2):
            t = torch.rand(256, generator=rng, dtype=torch.float64)
            mean.watch((1 + (10 * t).floor()).float(), t)
        if step == 30:
            resumed.load_state_dict(mean.state_dict())
        mean.after_step()
    middles = torch.arange(10, dtype=torch.float64) / 10 + 0.05
    torch.testing.assert_close(mean(middles), torch.arange(1, 11).double(), rtol=0.03, atol=0)
    resumed.after_step()  # nothing was seen
    assert resumed(middles)[9] < mean(middles)[9]
    unseen = RunningMean()
    unseen.watch(torch.full((4,), 5.0), torch.full((4,), 0.55, dtype=torch.float64))
    unseen.after_step()
    assert unseen(torch.tensor([0.15], dtype=torch.float64)).item() == 1


# SDI


def check_inversion() -> None:
    """The noise that is found leads the teacher's flow back to the sample."""
    row = ROWS["sdi"]
    method, _ = make("sdi", replace(row, settings=SDISettings(iterations=1, inversion="ddim", inversion_steps=400)))
    x = torch.linspace(-1, 2, 64)[:, None]
    t = torch.full((64,), 0.6, dtype=torch.float64)
    noise = method.noise(Samples(x, None, torch.zeros(64, dtype=torch.int64)), t, BatchRng(0, batch_size=64))  # type: ignore[attr-defined]
    gain, offset = flow_map(0.6, 0.0)
    torch.testing.assert_close(gain * method.path.add_noise(x, noise, t) + offset, x, rtol=0, atol=0.02)


def test_inversion_finds_the_noise_that_leads_to_the_sample() -> None:
    check_inversion()


def check_fixed_point() -> None:
    """Noised with what is found, the teacher gives the sample back; without an iteration it is the student's noise."""
    x, origin = torch.linspace(0.4, 0.8, 64)[:, None], torch.linspace(-2, 2, 64)[:, None]
    t, samples = torch.full((64,), 0.6, dtype=torch.float64), Samples(x, None, torch.zeros(64).long(), origin)
    for steps in (1, 400):
        method, _ = make("sdi", replace(ROWS["sdi"], settings=SDISettings(iterations=1, inversion_steps=steps)))
        noise = method.noise(samples, t, BatchRng(0, batch_size=64))  # type: ignore[attr-defined]
        x_t = method.path.add_noise(x, noise, t)
        if steps == 1:
            first = method.path.add_noise(x, origin, t)
            expected = (origin + method.teacher.predict(first, t, None, "eps")) / 2
            torch.testing.assert_close(noise, expected, rtol=0, atol=1e-5)
        else:
            torch.testing.assert_close(method.teacher.predict(x_t, t, None), x, rtol=0, atol=1e-3)


def test_the_fixed_point_is_a_noise_that_the_teacher_takes_off_again() -> None:
    check_fixed_point()


def test_a_wrong_sign_in_the_fixed_point_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = sdi.convert
    monkeypatch.setattr(sdi, "convert", lambda x, t, out, *types: honest(x, t, -out, *types))
    monkeypatch.setattr(VPCosine, "add_noise", lambda self, x0, eps, t: expand(self.alpha(t), x0) * x0 - eps)
    with pytest.raises(AssertionError):
        check_fixed_point()


def test_a_wrong_sign_in_the_inversion_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = VPCosine.add_noise
    monkeypatch.setattr(VPCosine, "add_noise", lambda self, x0, eps, t: honest(self, x0, -eps, t))
    with pytest.raises(AssertionError):
        check_inversion()


def test_noise_levels_fall_over_the_training_of_sdi() -> None:
    method, _ = make("sdi", replace(ROWS["sdi"], settings=SDISettings(iterations=10)))
    exit, seen = torch.zeros(4, dtype=torch.int64), []
    for _ in range(11):
        seen.append(float(method.levels(BatchRng(0, batch_size=4), exit)[0]))  # type: ignore[attr-defined]
        method.after_step()
    assert seen[0] == T_MAX
    assert seen[-1] == pytest.approx(T_MIN)
    assert seen == sorted(seen, reverse=True)


# VSD, SwiftBrush, Diff-Instruct


def test_vsd_draws_low_noise_levels_late_in_training() -> None:
    method, _ = make("vsd", replace(ROWS["vsd"], settings=VSDSettings(iterations=4, anneal_at=0.5)))
    exit, highest = torch.zeros(64, dtype=torch.int64), []
    for _ in range(4):
        t = method.levels(BatchRng(0, batch_size=64), exit)  # type: ignore[attr-defined]
        assert float(t.min()) >= T_MIN
        highest.append(float(t.max()))
        method.after_step()
    assert min(highest[:2]) > 0.95
    assert 0.45 < min(highest[2:]) <= max(highest[2:]) < 0.5


def test_a_counter_is_kept_with_a_checkpoint() -> None:
    counter, resumed = Counter(), Counter()
    for _ in range(3):
        counter.count()
    resumed.load_state_dict(counter.state_dict())
    assert resumed.share(12) == 0.25


class Table(Denoiser):
    """x0 = a number for each label."""

    def __init__(self, rows: int, num_classes: int | None) -> None:
        super().__init__()
        self.path, self.prediction, self.shape = VPCosine(), "x0", (1,)
        self.num_classes = self.null_label = num_classes
        self.rows = nn.Embedding(rows, 1)
        self.asked: list[Tensor] = []

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        assert labels is not None
        self.asked.append(labels)
        return self.rows(labels)

    def with_conditions(self, copies: int) -> Denoiser:
        assert self.num_classes is not None
        return Table(copies * (self.num_classes + 1), None)


def test_the_fake_score_of_swiftbrush_may_be_guided() -> None:
    teacher = Table(3, 2)
    method = swiftbrush.SwiftBrush(SwiftBrushSettings(steps=2, fake_guidance_scale=3), teacher, teacher)
    samples = Samples(torch.zeros(4, 1), torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1]))
    t = torch.full((4,), 0.9, dtype=torch.float64)
    assert isinstance(method.fake, Table)
    rows = method.fake.rows.weight
    c, u = rows[[0, 1, 3, 4]], rows[[2, 2, 5, 5]]
    torch.testing.assert_close(method.other(samples, samples.x, t), u + 3 * (c - u))

    method.fake.asked.clear()
    method.loss("fake", None, 0, BatchRng(0, batch_size=40))
    (labels,) = method.fake.asked
    assert (labels % 3 == 2).sum() == 4, "a tenth comes without its class"

    unguided = swiftbrush.SwiftBrush(SwiftBrushSettings(steps=2), teacher, teacher)
    assert isinstance(unguided.fake, Table)
    unguided.loss("fake", None, 0, BatchRng(0, batch_size=40))
    assert not (unguided.fake.asked[0] % 3 == 2).any()


def test_a_fake_score_without_classes_cannot_be_guided() -> None:
    teacher = MlpDenoiser()
    with pytest.raises(ValueError, match="fake_guidance_scale is 2"):
        REGISTRY["swiftbrush"](SwiftBrushSettings(fake_guidance_scale=2), teacher, teacher)


@pytest.mark.parametrize("path", [VPCosine(), RectifiedFlow(2.0)], ids=["vp", "flow"])
def test_log_normal_times_are_log_normal_and_cut(path: Any) -> None:
    u = (torch.arange(SIZE, dtype=torch.float64) + 0.5) / SIZE
    wide = log_normal(u, -0.4, 1.2, path, torch.full_like(u, 1e-5), 0.99999)
    log_ratio = -path.logsnr(wide) / 2
    assert log_ratio.mean().item() == pytest.approx(-0.4, abs=0.01)
    assert log_ratio.std().item() == pytest.approx(1.2, abs=0.02)
    cut = log_normal(u, -0.4, 1.2, path, torch.full_like(u, 0.5), 0.9)
    assert float(cut.min()) >= 0.5 - 1e-9
    assert float(cut.max()) <= 0.9 + 1e-9
    inside = wide[(wide > 0.5) & (wide < 0.9)]
    assert cut.median().item() == pytest.approx(inside.median().item(), abs=0.01)
