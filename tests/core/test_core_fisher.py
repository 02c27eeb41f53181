"""Identities of SiD, SiDA, moment matching and EM distillation that the affine check cannot express."""

from typing import Any

import pytest
import torch
from gaussian import MEAN, STD, GaussianTeacher, alpha, gaussian_batch, make, sigma
from rows import ROWS
from torch import Tensor

from workers.diffusion import losses
from workers.diffusion.paths import VPCosine
from workers.diffusion.solver import jump, posterior
from workers.methods import emd, sid
from workers.methods.base import Method
from workers.methods.emd import EMDistillation
from workers.randomness import BatchRng
from workers.templates.scores import Samples, ScoreMatching

OFFSET = 0.3


def drifted(kind: str, offset: float = OFFSET, **settings: Any) -> Method[Any]:
    """The method with a student off by `offset`, and a fake score that knows."""
    row = ROWS[kind]
    method, student = make(kind, row)
    object.__setattr__(method, "settings", row.settings.model_copy(update=settings))
    with torch.no_grad():
        student.do += offset
        row.follow(method, offset)
    return method


def distrust(t: Tensor) -> Tensor:
    """k with: the scores' x0 differ by k times the difference of the means, sigma^2/V."""
    return torch.tensor([sigma(u) ** 2 / ((alpha(u) * STD) ** 2 + sigma(u) ** 2) for u in t.tolist()])[:, None]


def check_sid_gradient() -> None:
    """By hand, at equal widths: d/dx of the identity is k^2 times the offset, over mean |x - f_phi|."""
    method = drifted("sid")
    assert isinstance(method, sid.SiD)
    x = (MEAN + OFFSET + STD * torch.randn(64, 1, generator=torch.Generator().manual_seed(2))).requires_grad_()
    samples, seen = Samples(x, None, torch.zeros(64, dtype=torch.long)), []
    compare = method.compare
    method.compare = lambda *a, **k: seen.append(compare(*a, **k)) or seen[-1]  # type: ignore[method-assign,func-returns-value]
    method.student_loss(samples, None, BatchRng(0, batch_size=64)).loss.backward()
    expected = distrust(seen[0].t) ** 2 * OFFSET / (x - seen[0].real).abs() / 64
    torch.testing.assert_close(x.grad, expected.detach(), rtol=1e-3, atol=1e-6)


def test_the_sid_gradient_goes_through_both_scores() -> None:
    check_sid_gradient()


def without_scores(self: Any, samples: Samples, rng: BatchRng, through_scores: bool = False) -> Any:
    return honest_compare(self, samples, rng)


honest_compare = ScoreMatching.compare


@pytest.mark.parametrize(
    ("module", "name", "by"),
    [
        (ScoreMatching, "compare", without_scores),  # Diff-Instruct, in silence
        (losses, "mean_distance", lambda x, real: (x - real).abs().mean(1)),  # missing stop-gradient
        (losses, "mean_distance", lambda x, real: (x - real).square().mean(1).detach()),  # wrong weight
    ],
)
def test_a_wrong_sid_gradient_is_noticed(module: Any, name: str, by: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, name, by)
    with pytest.raises(AssertionError):
        check_sid_gradient()


def test_the_identity_is_one_less_alpha_times_the_squared_distance_of_the_scores() -> None:
    rng, path = torch.Generator().manual_seed(0), VPCosine()
    x, eps = torch.randn(2, 100_000, 1, generator=rng)
    x = MEAN + OFFSET + STD * x
    t = torch.full((len(x),), 0.4, dtype=torch.float64)
    real, fake = GaussianTeacher(), GaussianTeacher()
    fake.means += OFFSET
    x_t = path.add_noise(x, eps, t)
    f_phi, f_psi = real.predict(x_t, t, None), fake.predict(x_t, t, None)
    for share in (0.5, 1.0, 1.2):
        value = losses.score_identity(x, f_phi, f_psi, share) * losses.mean_distance(x, f_phi)
        expected = (1 - share) * (f_phi - f_psi).square().mean()
        assert value.mean().item() == pytest.approx(expected.item(), abs=2e-3)


@pytest.mark.parametrize("swap", [False, True])
def test_the_critic_of_sida_and_its_student_want_opposite_things(swap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a critic that takes the larger for the more real; `swap` plants a critic the other way round."""
    sign = -1 if swap else 1
    monkeypatch.setattr(GaussianTeacher, "features", lambda self, x, t, labels: [sign * x * self.means.sum()])
    method = drifted("sida", offset=0.0, gan_weight=1.0)
    batch = gaussian_batch(method, 512)
    method.loss("student", batch, 0, BatchRng(0, batch_size=512)).loss.backward()
    (pull,) = [p.grad for name, p in method.student.named_parameters() if name == "do"]
    assert pull is not None
    assert (pull.item() < 0) != swap, "the student does not go where the critic sees images"
    higher, lower = (type(batch)(batch.images + shift, None) for shift in (1.0, -1.0))
    loss = {
        name: method.loss("fake", images, 0, BatchRng(0, batch_size=512)).loss.item()
        for name, images in (("higher", higher), ("lower", lower))
    }
    assert (loss["higher"] < loss["lower"]) != swap, "the critic takes samples for images"


def test_the_posterior_gives_back_the_forward_process() -> None:
    """A draw from q(x_s | x_t, x0) with data and noise of the process is a draw of the process; DDIM's is not."""
    rng, path = torch.Generator().manual_seed(0), VPCosine()
    x0, noise, fresh, other = torch.randn(4, 200_000, 1, generator=rng)
    x0 = MEAN + STD * x0
    for now, then in ((1.0, 0.75), (0.75, 0.3), (0.5, 0.45)):
        t, s = (torch.full((len(x0),), u, dtype=torch.float64) for u in (now, then))
        x_t = path.add_noise(x0, noise, t)
        x_s, direct = posterior(x_t, x0, fresh, t, s, path), path.add_noise(x0, other, s)
        for drawn in (x_s, direct):
            assert drawn.var().item() == pytest.approx((alpha(then) * STD) ** 2 + sigma(then) ** 2, rel=0.02)
        a = alpha(now) / alpha(then)
        assert ((x_s - alpha(then) * x0) * (x_t - alpha(now) * x0)).mean().item() == pytest.approx(
            a * sigma(then) ** 2, abs=0.005
        )
        assert (jump(x_t, x0, t, s, path) - x_s).square().mean() > 0.01
    zero, half = (torch.full((4,), u, dtype=torch.float64) for u in (0.0, 0.5))
    torch.testing.assert_close(posterior(x_t[:4], x0[:4], fresh[:4], half, zero, path), x0[:4])
    torch.testing.assert_close(posterior(x_t[:4], x0[:4], fresh[:4], half, half, path), x_t[:4])


def test_the_auxiliary_network_settles_halfway() -> None:
    """Its loss, as a function of its answer, is least between the student's clean image and the teacher's."""
    method, _ = make("moment_matching", ROWS["moment_matching"])
    assert isinstance(method, ScoreMatching)
    answer = torch.zeros(32, 1, requires_grad=True)
    seen: list[Samples] = []
    method.other = lambda samples, x_t, t: seen.append(samples) or answer  # type: ignore[method-assign,func-returns-value]
    real: list[Tensor] = []
    predict = method.teacher.predict
    method.teacher.predict = lambda *a, **k: real.append(predict(*a, **k)) or real[-1]  # type: ignore[method-assign,func-returns-value]
    batch, rng = gaussian_batch(method, 32), {"batch_size": 32}
    method.loss("fake", batch, 0, BatchRng(0, **rng))
    answer.data = (seen[0].x + real[0]) / 2
    method.loss("fake", batch, 0, BatchRng(0, **rng)).loss.backward()
    assert answer.grad is not None
    assert answer.grad.abs().max() < 1e-5


def test_samples_of_moment_matching_are_noised_by_the_posterior_of_their_own_step() -> None:
    method, _ = make("moment_matching", ROWS["moment_matching"])
    assert isinstance(method, ScoreMatching)
    asked: list[tuple[Samples, Tensor]] = []
    other = method.other
    method.other = lambda samples, x_t, t: asked.append((samples, t)) or other(samples, x_t, t)  # type: ignore[method-assign,func-returns-value]
    method.loss("student", gaussian_batch(method, 64), 0, BatchRng(0, batch_size=64))
    ((samples, s),) = asked
    t, end = torch.tensor(method.exits, dtype=torch.float64)[samples.exit].unbind(1)
    assert bool((s >= end).all())
    assert bool((s <= t).all())
    assert samples.exit.bincount().tolist() == [16, 16, 16, 16]


def emd_drift(**settings: Any) -> Any:
    method = drifted("emd", **settings)
    assert isinstance(method, EMDistillation)
    return method.e_step(BatchRng(0, batch_size=16384))


def test_one_langevin_step_is_diff_instruct() -> None:
    at = emd_drift(langevin_steps=1, latent_step=0.0)
    torch.testing.assert_close(at.real - at.fake, -0.05 * OFFSET * distrust(at.t), rtol=1e-3, atol=1e-5)


def test_the_drift_of_equal_widths_has_a_closed_form() -> None:
    at = emd_drift(langevin_steps=5, latent_step=0.0)
    torch.testing.assert_close(at.real - at.fake, -(1 - 0.95**5) * OFFSET * distrust(at.t), rtol=1e-3, atol=1e-5)


def test_nothing_random_is_left_where_the_scores_agree() -> None:
    at = emd_drift(offset=0.0, langevin_steps=4, latent_step=0.1)
    assert (at.real - at.fake).abs().max() < 1e-5


def reached(latent_step: float) -> float:
    """Mean distance of x_t from the teacher's mean, in units of where it was at first."""
    at = emd_drift(offset=1.0, langevin_steps=20, latent_step=latent_step, noise_step=0.3)
    a = torch.tensor([alpha(u) for u in at.t.tolist()])[:, None]
    return ((at.x_t - a * MEAN).mean() / a.mean()).abs().item()


def test_the_e_step_reaches_the_teacher() -> None:
    """Noise and latent together; the noise alone does not. So an E-step without latents is a planted fault."""
    assert reached(latent_step=0.3) < 0.05
    assert reached(latent_step=0.0) > 0.2


def test_langevin_steps_keep_a_normal_normal() -> None:
    x, noise = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0))
    moved = emd.langevin(x, torch.zeros(()), 0.1, noise)
    assert moved.var().item() == pytest.approx(0.9**2 + 0.2, rel=0.01)
