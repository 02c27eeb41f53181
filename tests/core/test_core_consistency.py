"""Consistency methods: which two points they compare, how that changes as training goes on, and with what weight."""

import math
from typing import Any

import pytest
import torch
from gaussian import Affinity, GaussianTeacher, compose
from test_core_guidance import Classes, check_labels, mix, x0_at
from test_core_guidance import step as step_by
from test_core_guidance import teacher as teacher_of_classes
from torch import Tensor

from service.methods.ct import CTSettings
from service.methods.ect import ECTSettings
from service.methods.ict import ICTSettings
from service.methods.lcm import LCMSettings
from service.methods.pcm import PCMSettings
from service.methods.tcd import TCDSettings
from workers.data.source import Batch
from workers.diffusion.guidance import guided
from workers.diffusion.timesteps import SIGMA_MAX, noise_level
from workers.methods.base import Method
from workers.methods.ct import CT
from workers.methods.ect import ECT
from workers.methods.ict import ICT
from workers.methods.lcm import LCM
from workers.methods.pcm import PCM
from workers.methods.tcd import TCD
from workers.models.mixture import MlpDenoiser
from workers.randomness import BatchRng
from workers.templates.adversarial import Look
from workers.templates.consistency import SharedNoise
from workers.templates.regression import Draw

SIZE = 4096


def made(method: Any, settings: Any) -> Any:
    teacher = GaussianTeacher(MlpDenoiser(dimension=1, width=8))
    return method(settings, teacher, teacher)


def after(method: Any, share: float) -> Any:
    """The method, with that share of its steps done."""
    method.counter.steps += round(share * method.settings.iterations)
    return method


def drawn(method: Any) -> Draw:
    images = torch.randn(SIZE, 1, generator=torch.Generator().manual_seed(0))
    at = method.draw(Batch(images, None), 0, BatchRng(0, batch_size=SIZE))
    assert isinstance(at, Draw)
    return at


def levels(method: Any) -> tuple[Tensor, Tensor]:
    at = drawn(method)
    return noise_level(at.t, method.path), noise_level(at.s, method.path)


def test_lcm_skips_k_intervals_and_ends_at_zero() -> None:
    at = drawn(made(LCM, LCMSettings(grid_steps=100, skip=7, guidance_scale=1)))
    i, j = torch.round(at.t * 100), torch.round(at.s * 100)
    assert set(i.tolist()) == set(range(1, 101))
    assert torch.equal(j, (i - 7).clamp(min=0))


def lcm_of_two_classes() -> tuple[Method[Any], Classes]:
    """From scale 0.5 to 2.5, and its exact solution: guided DDIM steps down the grid."""

    def solution(t: float, told: float, label: int) -> Affinity:
        total = (1.0, 0.0)
        for i in range(1, round(t * 4) + 1):
            x0 = mix(x0_at(i / 4, label), x0_at(i / 4, 2), 0.5 + 2 * told)
            total = compose(total, step_by(x0, i / 4, (i - 1) / 4))
        return total

    student = Classes(solution, knows_target=True)
    settings = LCMSettings(grid_steps=4, skip=1, guidance_scale=1.5, guidance_spread=1)
    return LCM(settings, guided(teacher_of_classes(student), 1.5), teacher_of_classes(student)), student


def test_lcm_learns_every_scale_of_a_range() -> None:
    check_labels(lcm_of_two_classes, (0, 1))


def test_lcm_that_forgets_the_scale_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LCM, "told", lambda self, scale: torch.full_like(scale, 0.5))
    with pytest.raises(AssertionError):
        check_labels(lcm_of_two_classes, (0, 1))


def test_tcd_ends_anywhere_below_both_points() -> None:
    at = drawn(made(TCD, TCDSettings(grid_steps=8)))
    n, m = torch.round(at.s * 8), torch.round(at.end * 8)  # type: ignore[attr-defined]
    for here in range(8):
        ends = m[n == here]
        assert set(ends.tolist()) == set(range(here + 1))
        assert ends.mean().item() == pytest.approx(here / 2, abs=0.1 * here + 1e-9)


@torch.no_grad()
def test_pcm_leads_to_the_edge_of_its_phase_and_leaves_the_edge_alone() -> None:
    method = made(PCM, PCMSettings(phases=4, phase_steps=8))
    method.student.raw = lambda x, t, labels, s=None: torch.full_like(x, torch.nan)
    at = drawn(method)
    landed = method.f(method.teacher, at.x, at.t, at)
    edge = torch.ceil(at.t * 4 - 1e-9) / 4 - 0.25
    torch.testing.assert_close(landed, step(method, at.x, at.t, edge))
    last = torch.round(at.t * 32) % 8 == 1  # points whose neighbour is the edge
    there = method.f(method.teacher, method.neighbour(at), at.s, at)
    torch.testing.assert_close(there[last], method.neighbour(at)[last], rtol=0, atol=1e-6)


def check_the_critic_of_phases() -> None:
    """It is shown f- as real and f as fake, both at one level of the phase; each turn trains its own network."""
    torch.manual_seed(0)
    teacher = MlpDenoiser(dimension=1, width=8).requires_grad_(False)
    method = PCM(PCMSettings(gan_weight=0.1), teacher, teacher)
    with torch.no_grad():
        for weights in method.student.parameters():
            weights += 0.5 * torch.randn_like(weights)
    seen: dict[str, Any] = {}
    honest = method.gan.critic_loss
    method.gan.critic_loss = lambda real, fake, rng: seen.update(real=real, fake=fake) or honest(real, fake, rng)  # type: ignore[method-assign,assignment]
    batch = Batch(torch.randn(SIZE, 1, generator=torch.Generator().manual_seed(0)), None)
    for role in ("critic", "student"):
        for name, module in method.trainable.items():
            module.zero_grad()
            module.requires_grad_(name == role)
        method.loss(role, batch, 0, BatchRng(0, batch_size=SIZE)).loss.backward()
        for name, module in method.trainable.items():
            assert all((p.grad is not None) == (name == role) for p in module.parameters())
    at, real, fake = drawn(method), seen["real"], seen["fake"]
    low, high = method.phase(at.t)
    assert torch.equal(real.t, fake.t)
    assert bool(((real.t > low) & (real.t <= high)).all())
    near = real.t - low < 0.003  # where hardly any noise is added
    assert int(near.sum()) > 10
    with torch.no_grad():
        target, output = method.target(at)[near], method.output(at)[near]
    noise = (real.x[near] - target).square().mean()
    assert noise < 0.01
    assert (fake.x[near] - output).square().mean() < 0.01
    assert (target - output).square().mean() > 3 * noise


def test_the_critic_of_phases_sees_both_ends_at_one_level() -> None:
    check_the_critic_of_phases()


def swapped_looks(*args: Any) -> Any:
    return LOOKS(*args)[::-1]


def looks_from_zero(self: PCM, target: Tensor, output: Tensor, at: Draw, rng: BatchRng) -> Any:
    """Noised as if both were clean images."""
    t = self.phase(at.t)[1]
    return tuple(Look(self.path.add_noise(x, rng.normal((1,)), t), t, at.labels) for x in (target, output))


LOOKS = PCM.looks


@pytest.mark.parametrize("fault", [swapped_looks, looks_from_zero])
def test_a_fault_in_what_the_critic_sees_is_found(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PCM, "looks", fault)
    with pytest.raises(AssertionError):
        check_the_critic_of_phases()


def step(method: Any, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    x0, eps = (method.teacher.predict(x, t, None, want) for want in ("x0", "eps"))
    return method.path.add_noise(x0, eps, s)


def test_the_grid_of_consistency_training_grows_and_its_target_slows_down() -> None:
    method = made(CT, CTSettings(first_steps=2, last_steps=150, target_decay=0.9, iterations=1000))
    grids = [after(method, 0.25).intervals() for _ in range(4)]
    expected = [math.ceil(math.sqrt(9 + k / 4 * (151**2 - 9)) - 1) for k in range(1, 5)]
    assert grids == expected
    assert grids[-1] == 150
    assert method.decay() == pytest.approx(math.exp(2 * math.log(0.9) / 150))
    assert made(CT, CTSettings(first_steps=2, target_decay=0.9)).decay() == pytest.approx(0.9)


def test_the_improved_grid_doubles_in_equal_parts_of_training() -> None:
    settings = ICTSettings(first_steps=10, last_steps=1280, iterations=800)
    grids = [after(made(ICT, settings), share).intervals() for share in (0, 0.124, 0.125, 0.25, 0.5, 0.874, 0.875, 1)]
    assert grids == [10, 10, 20, 40, 160, 640, 1280, 1280]


def test_improved_noise_levels_are_lognormal_on_the_grid() -> None:
    method = made(ICT, ICTSettings(first_steps=20, last_steps=20, log_sigma_mean=-1.1, log_sigma_std=2.0))
    t, s = levels(method)
    assert t.max() == SIGMA_MAX
    assert s.min() == 0
    for sigma in t.unique().tolist()[1:-1]:
        normal = torch.distributions.Normal(-1.1, 2.0)
        up_to = normal.cdf(torch.tensor([math.log(sigma), math.log(SIGMA_MAX)]))
        assert (t <= sigma * 1.001).double().mean().item() == pytest.approx((up_to[0] / up_to[1]).item(), abs=0.01)
    for sigma in s.unique().tolist()[1:]:
        assert (t - sigma).abs().min() < 1e-6 * SIGMA_MAX, "where one cell ends, another one starts"


def test_easy_tuning_closes_in_by_its_quotient() -> None:
    gaps = []
    for part in range(1, 5):
        method = after(made(ECT, ECTSettings(iterations=400, parts=4)), (part - 1) / 4)
        t, s = levels(method)
        n = 1 + 8 * torch.sigmoid(-t)
        expected = (t - t * n / 2**part).clamp(min=0)
        torch.testing.assert_close(s, expected, rtol=1e-6, atol=1e-6)
        gaps.append((t - s).mean().item())
    assert gaps == sorted(gaps, reverse=True)
    assert torch.quantile(t.log(), 0.5).item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("kind", ["ict", "ect"])
def test_the_weight_is_one_over_the_step_in_noise(kind: str) -> None:
    method = made(ICT, ICTSettings()) if kind == "ict" else made(ECT, ECTSettings())
    at = drawn(method)
    t, s = noise_level(at.t, method.path), noise_level(at.s, method.path)
    far, near = torch.full_like(at.x, 3.0), torch.zeros_like(at.x)
    torch.testing.assert_close(method.distance(far, near, at), (3 / (t - s)).float(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("kind", ["ct", "ict", "ect"])
def test_training_without_a_teacher_asks_none(kind: str) -> None:
    settings: Any = {"ct": CTSettings(), "ict": ICTSettings(), "ect": ECTSettings()}[kind]
    method = made({"ct": CT, "ict": ICT, "ect": ECT}[kind], settings)
    assert isinstance(method, SharedNoise)
    method.teacher.raw = lambda *args: pytest.fail("the teacher was asked")
    images = torch.randn(8, 1, generator=torch.Generator().manual_seed(0))
    method.loss("student", Batch(images, None), 0, BatchRng(0, batch_size=8)).loss.backward()
    before = int(method.counter.steps)
    method.after_step()
    assert int(method.counter.steps) == before + 1
