"""Guidance is learnt on a 2-D mixture of three classes, from its closed-form guided denoiser: half a minute."""

from typing import Any

import pytest
import torch
from learning import training_points
from torch import Tensor

from service.methods.guidance import GuidanceSettings
from service.methods.snapfusion import SnapFusionSettings
from workers.data.source import ImageSource
from workers.diffusion.guidance import guided_prediction
from workers.diffusion.solver import Predict, solve
from workers.diffusion.timesteps import even_grid
from workers.methods.guidance import Guidance
from workers.methods.registry import REGISTRY
from workers.models.denoiser import Denoiser
from workers.models.mixture import MixtureDenoiser, MlpDenoiser, six_modes
from workers.state import State
from workers.trainer import Cadence, Trainer

pytestmark = pytest.mark.slow
N = 2000


class ThreeClasses(MixtureDenoiser):
    """Neighbouring pairs of the six modes are a class; label 3 is all of them."""

    num_classes = null_label = 3

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        assert labels is not None
        member = (torch.arange(6) // 2 == labels[:, None]) | (labels[:, None] == 3)
        return MixtureDenoiser(self.weights * member, self.means, self.stds, self.path).raw(x, t, None)

    def with_target(self) -> Denoiser:
        return self.trainable_copy()  # the network below is told one from the start


def three_classes(knows_target: bool) -> tuple[ThreeClasses, ImageSource]:
    """The oracle with a network fitted to it, and points with their classes."""
    torch.manual_seed(0)
    six = six_modes()
    network = MlpDenoiser(conditions=4, knows_target=knows_target)
    network.num_classes = network.null_label = 3
    teacher = ThreeClasses(six.weights, six.means, six.stds, network=network)
    images = training_points(six).images
    labels = torch.cdist(images, six.means).argmin(1) // 2
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    rng = torch.Generator().manual_seed(0)
    for step in range(1500):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / 1500)
        pick = torch.randint(len(images), (256,), generator=rng)
        asked = torch.where(torch.rand(256, generator=rng) < 0.3, 3, labels[pick])
        t, s = torch.rand(2, 256, generator=rng, dtype=torch.float64).clamp(min=1e-3).unbind(0)
        x_t = teacher.path.add_noise(images[pick], torch.randn(256, 2, generator=rng), t)
        out = network.raw(x_t, t, asked, s if knows_target else None)
        loss = (out - teacher.predict(x_t, t, asked, "v")).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return teacher, ImageSource(images, labels)


def train(settings: Any, teacher: Denoiser, points: ImageSource, host: Any) -> tuple[Any, Denoiser]:
    method = REGISTRY[settings.kind](settings, teacher, teacher)
    run = Trainer(method, points, host, State(), Cadence(10**6, 10**6), seed=0)
    run.run()
    return method, run.average


@torch.no_grad()
def drawn(predict: Predict, steps: int) -> Tensor:
    noise = torch.randn(N, 2, generator=torch.Generator().manual_seed(3))
    return solve(predict, noise, even_grid(steps), six_modes().path)


def rms(a: Tensor, b: Tensor) -> float:
    return (a - b).square().mean().sqrt().item()


LABELS = torch.arange(N) % 3


def test_one_evaluation_takes_the_place_of_two_at_every_scale(local_host: Any) -> None:
    teacher, points = three_classes(knows_target=True)
    settings = GuidanceSettings(iterations=1500, batch_size=512, learning_rate=2e-3, ema_decay=0.98)
    method, student = train(settings, teacher, points, local_host())
    assert isinstance(method, Guidance)
    plain = drawn(lambda x, t: teacher.predict(x, t, LABELS), 16)
    for scale in (1.0, 1.5, 2.0, 3.0):
        g = torch.full((N,), scale, dtype=torch.float64)

        def guided(x: Tensor, t: Tensor, g: Tensor = g) -> Tensor:
            return guided_prediction(teacher, x, t, LABELS, g)

        def once(x: Tensor, t: Tensor, g: Tensor = g) -> Tensor:
            return student.predict(x, t, LABELS, s=method.told(g))

        exact = drawn(guided, 16)
        off, moved = rms(drawn(once, 16), exact), rms(plain, exact)
        print(f"guidance {scale}: off by {off:.3f}, where guidance moves points by {moved:.3f}")
        assert off < 0.1 + 0.1 * moved


def test_a_snapfusion_student_can_still_be_guided(local_host: Any) -> None:
    teacher, points = three_classes(knows_target=False)
    scale = torch.tensor(2.0)
    exact = drawn(lambda x, t: guided_prediction(teacher, x, t, LABELS, scale), 8)
    off = {}
    for share in (0.0, 0.5):
        settings = SnapFusionSettings(
            first_steps=4,
            last_steps=1,
            cfg_probability=share,
            rung_iterations=400,
            batch_size=512,
            learning_rate=2e-3,
            ema_decay=0.98,
        )
        _, student = train(settings, teacher, points, local_host())
        once = drawn(lambda x, t, student=student: guided_prediction(student, x, t, LABELS, scale), 1)
        off[share] = rms(once, exact)
    print(f"one guided step of the student is off by {off[0.5]:.3f}; without the CFG-aware loss by {off[0.0]:.3f}")
    assert off[0.5] < 0.15
    assert off[0.5] < 0.5 * off[0.0]
