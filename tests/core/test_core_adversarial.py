"""The adversarial term against closed forms: two Gaussians and a linear critic, slopes that are known."""

from typing import Any

import pytest
import torch
from gaussian import Fault
from torch import Tensor, nn

from service.methods import DMD2Settings
from service.methods.base import CriticSettings, NoisedCriticSettings
from workers.data.source import Batch
from workers.diffusion import losses
from workers.methods.registry import REGISTRY
from workers.models.mixture import MlpDenoiser
from workers.randomness import BatchRng
from workers.templates import adversarial
from workers.templates.adversarial import Adversarial, Levels, Look

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
