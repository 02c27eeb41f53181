"""The adversarial term against closed forms: two Gaussians and a linear critic, slopes that are known."""

from typing import Any

import pytest
import torch
from gaussian import Fault
from torch import Tensor, nn

from service.methods.add import ADDSettings
from service.methods.dmd2 import DMD2Settings
from service.methods.ladd import LADDSettings
from service.methods.lightning import LightningSettings
from service.methods.templates import CriticSettings, NoisedCriticSettings
from service.methods.ufogen import UFOGenSettings
from workers.data.source import Batch
from workers.diffusion import losses
from workers.diffusion.losses import squared
from workers.diffusion.solver import jump
from workers.methods import add
from workers.methods.registry import REGISTRY
from workers.models.mixture import MlpDenoiser
from workers.randomness import BatchRng
from workers.templates import adversarial
from workers.templates.adversarial import Adversarial, Levels, Look
from workers.templates.gan import Answer

REAL, FAKE, STD = torch.tensor([0.8, -0.2]), torch.tensor([-0.4, 0.5]), 0.7


class Linear(nn.Module):
    """D(x) = w x + b, at every noise level."""

    def __init__(self, w: Tensor, b: float = 0.0) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(w.clone()), nn.Parameter(torch.tensor(b))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return (x * self.w).sum(1, keepdim=True) + self.b


class Quadratic(nn.Module):
    """D(x) = |x|^2/2, whose slope is x."""

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return 0.5 * x.square().sum(1, keepdim=True)


def optimal() -> Linear:
    """log(real density/fake density)."""
    return Linear((REAL - FAKE) / STD**2, float((FAKE @ FAKE - REAL @ REAL) / (2 * STD**2)))


def draws(n: int = 20_000) -> tuple[Look, Look, BatchRng]:
    noise = torch.randn(2, n, 2, generator=torch.Generator().manual_seed(0))
    t = torch.full((n,), 0.5, dtype=torch.float64)
    return Look(REAL + STD * noise[0], t, None), Look(FAKE + STD * noise[1], t, None), BatchRng(3, batch_size=n)


def check_loss(gan_loss: Any) -> None:
    """The critic's optimum, the student's direction, and the penalty on slopes."""
    real, fake, rng = draws()
    term = Adversarial(CriticSettings(gan_loss=gan_loss), optimal())
    term.critic_loss(real, fake, rng).mean().backward()
    if gan_loss == "non_saturating":
        assert max(p.grad.abs().max().item() for p in term.critic.parameters()) < 0.01
    else:
        x, y = term.logits(real)[:, 0], term.logits(fake)[:, 0]
        hinge = (1 - x).clamp(min=0) + (1 + y).clamp(min=0)
        torch.testing.assert_close(term.critic_loss(real, fake, rng), hinge)
    far = Adversarial(CriticSettings(gan_loss=gan_loss), Linear(0 * REAL))
    far.critic_loss(real, fake, rng).mean().backward()
    assert isinstance(far.critic, Linear)
    assert far.critic.w.grad is not None
    assert far.critic.w.grad @ (REAL - FAKE) < -0.1, "the critic learns to tell the real from the fake"

    fake.x.requires_grad_(True)
    term.generator_loss(fake).mean().backward()
    assert fake.x.grad is not None
    assert fake.x.grad.sum(0) @ (REAL - FAKE) < -0.1, "the student learns to look real"


def check_r1() -> None:
    real, fake, rng = draws()
    slopes = {"linear": (optimal(), 0.5 * optimal().w.square().sum()), "x": (Quadratic(), 0.5 * real.x.square().sum(1))}
    for critic, expected in slopes.values():
        plain = Adversarial(CriticSettings(), critic).critic_loss(real, fake, rng)
        for r1, tolerance in (("exact", 1e-4), ("approximate", 0.05)):
            term = Adversarial(CriticSettings(r1=r1, r1_weight=3.0), critic)  # type: ignore[arg-type]
            penalty = (term.critic_loss(real, fake, rng) - plain) / 3
            assert penalty.mean().item() == pytest.approx(expected.mean().item(), rel=tolerance)
            if r1 == "exact":
                torch.testing.assert_close(penalty, expected.expand_as(penalty), rtol=1e-3, atol=1e-4)
    linear = Linear(0 * REAL + 0.3)
    term = Adversarial(CriticSettings(r1="exact", r1_weight=3.0), linear)
    plain = Adversarial(CriticSettings(), linear).critic_loss(real, fake, rng)
    (term.critic_loss(real, fake, rng) - plain).mean().backward()
    torch.testing.assert_close(linear.w.grad, 3 * linear.w.detach(), rtol=1e-3, atol=1e-4)


FAULTS = [
    Fault(losses.F, "softplus", lambda x: torch.log1p(torch.exp(x.neg()))),  # sign
    Fault(
        adversarial, "LOSSES", {"non_saturating": (losses.gan_generator, lambda r, f: losses.gan_discriminator(f, r))}
    ),
    Fault(
        adversarial,
        "LOSSES",
        {"non_saturating": (losses.gan_generator, lambda r, f: losses.gan_discriminator(2 * r, f))},
    ),
    Fault(adversarial, "LOSSES", {"non_saturating": (lambda f: -losses.gan_generator(f), losses.gan_discriminator)}),
]


@pytest.mark.parametrize("gan_loss", ["non_saturating", "hinge"])
def test_the_critic_finds_the_density_ratio_and_the_student_the_data(gan_loss: str) -> None:
    check_loss(gan_loss)


def test_r1_is_the_squared_slope_on_real_images() -> None:
    check_r1()


@pytest.mark.parametrize("fault", FAULTS, ids=["sign", "swapped", "weight", "student-sign"])
def test_a_planted_fault_in_the_loss_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault.module, fault.name, fault.by)
    with pytest.raises(AssertionError):
        check_loss("non_saturating")


@pytest.mark.parametrize("fault", [Fault(adversarial, "NUDGE", 3.0)], ids=["nudge"])
def test_a_planted_fault_in_r1_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault.module, fault.name, fault.by)
    with pytest.raises(AssertionError):
        check_r1()


def test_a_critic_turn_leaves_the_samples_alone() -> None:
    real, fake, rng = draws(8)
    fake.x.requires_grad_(True)
    for r1 in ("exact", "approximate"):
        term = Adversarial(CriticSettings(r1=r1, r1_weight=1.0), optimal())  # type: ignore[arg-type]
        term.critic_loss(real, fake, rng).mean().backward()
    assert fake.x.grad is None
    assert real.x.grad is None
    assert not real.x.requires_grad


def test_the_ceiling_follows_how_sure_the_critic_is() -> None:
    levels = Levels(NoisedCriticSettings(critic_noise="adaptive"))
    term = Adversarial(CriticSettings(), optimal(), levels)
    real, fake, rng = draws(64)
    u = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert levels(u).max() == pytest.approx(0.1)
    for _ in range(40):
        for _micro_batch in range(2):
            term.critic_loss(real, fake, rng)
        levels.after_step()
    assert levels(u).max() == pytest.approx(0.3)
    assert levels(u).min() == pytest.approx(0.02)

    resumed = Levels(NoisedCriticSettings(critic_noise="adaptive"))
    resumed.load_state_dict(levels.state_dict())
    assert torch.equal(resumed(u), levels(u))
    unsure = Adversarial(CriticSettings(), Linear(0 * REAL, -1.0), resumed)
    unsure.critic_loss(real, fake, rng)
    resumed.after_step()
    assert resumed(u).max() == pytest.approx(0.295)
    resumed.after_step()  # nothing was seen
    assert resumed(u).max() == pytest.approx(0.295)


def test_fixed_levels_stay() -> None:
    levels = Levels(NoisedCriticSettings(critic_noise_max=0.7))
    real, fake, rng = draws(64)
    Adversarial(CriticSettings(), optimal(), levels).critic_loss(real, fake, rng)
    levels.after_step()
    assert float(levels(torch.ones(1, dtype=torch.float64))) == pytest.approx(0.7)


@pytest.mark.parametrize("gan_loss", ["non_saturating", "hinge"])
@pytest.mark.parametrize("r1", ["exact", "approximate"])
def test_dmd2_takes_the_term(gan_loss: str, r1: str) -> None:
    torch.manual_seed(0)
    teacher = MlpDenoiser(width=32)
    kind = REGISTRY["dmd2"]

    settings = DMD2Settings(gan_weight=0.1, gan_loss=gan_loss, r1=r1, r1_weight=1.0, steps=2, iterations=1)  # type: ignore[arg-type]
    method = kind(settings, teacher, teacher)

    batch = Batch(torch.randn(8, 2), None)
    for role in ("student", "fake"):
        out = method.loss(role, batch, 0, BatchRng(0, batch_size=8))
        out.loss.backward()
        assert torch.isfinite(out.loss)
    assert all(p.grad is not None for p in method.trainable["fake"].parameters())


def make(settings: Any) -> Any:
    torch.manual_seed(0)
    teacher = MlpDenoiser(width=32).requires_grad_(False)
    return REGISTRY[settings.kind](settings, teacher, teacher)


def batch(n: int = 64) -> Batch:
    return Batch(torch.randn(n, 2, generator=torch.Generator().manual_seed(5)), None)


SETTINGS = [LADDSettings(real="images"), ADDSettings(), UFOGenSettings(), LightningSettings(first_steps=2)]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.kind)
def test_each_turn_trains_its_own_role(settings: Any) -> None:
    method, last = make(settings), len(make(settings).segments()) - 1
    for role, module in method.trainable.items():
        for other in method.trainable.values():
            other.zero_grad()
            other.requires_grad_(other is module)
        method.loss(role, batch(), last, BatchRng(0, batch_size=64)).loss.backward()
        assert all(
            any(p.grad is not None for p in other.parameters()) == (other is module)
            for other in method.trainable.values()
        )
        assert all(p.grad is None for p in method.teacher.parameters())


def test_real_and_fake_are_noised_alike_and_told_apart_by_step() -> None:
    method, seen = make(LADDSettings(real="images")), []
    method.gan.critic_loss = lambda real, fake, rng: seen.append((real, fake)) or torch.zeros(64, requires_grad=True)
    method.loss("critic", batch(), 0, BatchRng(0, batch_size=64))
    real, fake = seen[0]
    assert torch.equal(real.t, fake.t)
    assert torch.equal(real.context[0], fake.context[0])
    assert torch.bincount(real.context[0]).tolist() == pytest.approx([32, 11, 11, 10], abs=1)
    assert 0.02 <= real.t.min() < real.t.max() <= 0.98


def test_the_noise_levels_of_ladd_are_logit_normal_on_a_rectified_flow() -> None:
    method = make(LADDSettings(real="images", level_mean=-0.5, level_std=0.8))
    nothing = torch.zeros(4096)
    at = Answer(nothing, torch.ones(4096).double(), nothing, nothing.long(), nothing, None)
    angle = method.path.angle(method.critic_times(at, BatchRng(0, batch_size=4096)))
    logit = torch.log(torch.tan(angle))  # sigma/alpha of a rectified flow is t/(1 - t)
    assert logit.mean().item() == pytest.approx(-0.5, abs=0.01)
    assert logit.std().item() == pytest.approx(0.8, abs=0.02)


def distillation_gradient(method: Any) -> tuple[Tensor, Tensor]:
    """Of ADD's second term in x0, and what it should be."""
    data = batch(256)
    x0 = data.images.clone().requires_grad_(True)
    at = Answer(x0, torch.ones(256), torch.zeros(256), torch.zeros(256).long(), data.images, None)
    method.other_loss(at, BatchRng(0, batch_size=256)).sum().backward()
    rng = BatchRng(0, batch_size=256)
    t = rng.uniform()
    noise = rng.normal((2,))
    x_t = torch.cos(torch.pi * t / 2)[:, None] * data.images + torch.sin(torch.pi * t / 2)[:, None] * noise
    target = method.teacher.predict(x_t.float(), t, None)
    expected = 2.5 * torch.cos(torch.pi * t / 2).float()[:, None] * (data.images - target)  # 2/2 dimensions
    return x0.grad, expected  # type: ignore[return-value]


def test_the_distillation_of_add_is_the_teachers_opinion_weighted_by_alpha() -> None:
    torch.testing.assert_close(*distillation_gradient(make(ADDSettings(distillation_weight=2.5))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(add, "squared", lambda a, b: -squared(a, b)),  # sign
        Fault(add, "squared", lambda a, b: 2 * squared(a, b)),  # weight
        Fault(add.torch, "no_grad", torch.enable_grad),  # a missing stop-gradient
    ],
    ids=["sign", "weight", "stop"],
)
def test_a_planted_fault_in_the_distillation_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    method = make(ADDSettings(distillation_weight=2.5))
    monkeypatch.setattr(fault.module, fault.name, fault.by)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(*distillation_gradient(method), rtol=1e-4, atol=1e-5)


def test_ufogen_compares_at_the_next_time_and_reconstructs_what_was_noised() -> None:
    method = make(UFOGenSettings(reconstruction_weight=0.5))
    at = method.answer(batch(), BatchRng(0, batch_size=64))
    times = method.critic_times(at, BatchRng(1, batch_size=64))
    assert sorted({round(t, 2) for t in times.tolist()}) == [0.02, 0.26, 0.5, 0.76]
    assert bool((times < at.t).all())
    expected = 0.5 * torch.cos(torch.pi * at.t / 2) ** 2 * (at.x0 - at.images).square().mean(1)
    torch.testing.assert_close(method.other_loss(at, BatchRng(2, batch_size=64)).double(), expected.double())
    assert float(method.other_loss(at, BatchRng(2, batch_size=64))[at.t == 1].detach().abs().max()) < 1e-9


def test_the_critic_of_lightning_sees_where_two_steps_of_the_rung_above_land() -> None:
    method = make(LightningSettings(first_steps=2, rung_iterations=3))
    at = method.draw(batch(), 1, BatchRng(0, batch_size=64))
    bare, noised = (
        method.look(method.target(at), at, level, BatchRng(1, batch_size=64)) for level in (at.s, at.s + 0.3)
    )
    middle = (at.t + at.s) / 2
    x_middle = jump(at.x, method.previous.predict(at.x, at.t, None), at.t, middle, method.path)
    landed = jump(x_middle, method.previous.predict(x_middle, middle, None), middle, at.s, method.path)
    torch.testing.assert_close(bare.x, landed, rtol=0, atol=1e-5)
    noise = BatchRng(1, batch_size=64).normal((2,))
    level = torch.tensor(torch.pi * 0.3 / 2)
    torch.testing.assert_close(noised.x, level.cos() * bare.x + level.sin() * noise, rtol=0, atol=1e-5)


def test_the_critic_of_lightning_is_conditional_first() -> None:
    method = make(LightningSettings(first_steps=2, rung_iterations=3, conditional_share=0.5))
    shown = []
    for _ in range(sum(method.segments())):
        shown.append(method.conditional(1))
        method.after_step()
    assert shown[6:] == [True] * 3 + [False] * 3
    look = method.look(
        batch().images,
        method.draw(batch(), 1, BatchRng(0, batch_size=64)),
        torch.ones(64).double(),
        BatchRng(0, batch_size=64),
    )
    assert len(look.context) == 1
    assert method.turns(5) == ["student"]
    assert method.turns(6) == ["critic", "student"]
