"""Rows of the methods whose main loss is a critic's. The student's own part is exact where the critic is."""

from typing import Any

from gaussian import MEAN, STD, Fault, Row, flow_map
from torch import Tensor, nn

from rows.first import flipped_inversion, flipped_step, two_steps
from service.methods.add import ADDSettings
from service.methods.ladd import LADDSettings
from service.methods.lightning import LightningSettings
from service.methods.ufogen import UFOGenSettings
from workers.diffusion.losses import gan_generator
from workers.diffusion.paths import VPCosine, expand
from workers.templates import adversarial, gan, ladder


class ExactCritic(nn.Module):
    """log(real density/fake density) of noised samples whose mean is off by `offset`."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset, self.path = offset, VPCosine()

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None, condition: Tensor) -> Tensor:
        alpha, sigma = expand(self.path.alpha(t), x), expand(self.path.sigma(t), x)
        fake, real = x - alpha * (MEAN + self.offset), x - alpha * MEAN
        return 0.5 * (fake**2 - real**2) / ((alpha * STD) ** 2 + sigma**2)


def exact_critic(method: Any, offset: float) -> None:
    method.gan.critic = ExactCritic(offset)


def detached(x: Tensor, x0: Tensor, t: Tensor, timesteps: int) -> Tensor:
    return x0 * 0 + x0.detach()


SWAPPED = {kind: (lambda fake: gan_generator(-fake), None) for kind in adversarial.LOSSES}
NOTHING = {kind: (lambda fake: gan_generator(fake.detach()) + 0 * fake.mean(1), None) for kind in adversarial.LOSSES}
LEARN = {"iterations": 500, "batch_size": 256, "ema_decay": 0.98, "learning_rate": 5e-4}

ROWS = {
    "ladd": Row(
        LADDSettings(iterations=1, real="images"),
        lambda t, s: flow_map(t, 0.0),
        short={"iterations": 12, "steps": 2, "real": "images"},
        follow=exact_critic,
        faults=[
            Fault(adversarial, "LOSSES", SWAPPED),  # swapped
            Fault(gan, "consistency_function", detached),  # a stop-gradient too many
        ],
        through_scores=True,
        mixture=(LADDSettings(real="images", **LEARN), 1, 0.02),
    ),
    "add": Row(
        ADDSettings(iterations=1, distillation_weight=0),  # which pulls to the modes: tested by itself
        lambda t, s: flow_map(t, 0.0),
        short={"iterations": 12, "steps": 2},
        follow=exact_critic,
        faults=[Fault(adversarial, "LOSSES", SWAPPED), Fault(adversarial, "LOSSES", NOTHING)],
        through_scores=True,
        mixture=(ADDSettings(**LEARN), 1, 0.02),
    ),
    "ufogen": Row(
        UFOGenSettings(iterations=1, reconstruction_weight=0),  # which pulls to the mean: tested by itself
        lambda t, s: flow_map(t, 0.0),
        short={"iterations": 12, "steps": 2},
        follow=exact_critic,
        faults=[Fault(adversarial, "LOSSES", SWAPPED), Fault(adversarial, "LOSSES", NOTHING)],
        through_scores=True,
        mixture=(UFOGenSettings(**LEARN), 4, 0.02),
    ),
    "lightning": Row(
        LightningSettings(first_steps=2, last_steps=1, rung_iterations=1),
        two_steps,
        short={"first_steps": 2, "last_steps": 1, "rung_iterations": 3},
        faults=[Fault(ladder, "jump", flipped_step), Fault(ladder, "invert_target", flipped_inversion)],
        through_scores=True,
        mixture=(
            LightningSettings(
                rung_iterations=80,
                batch_size=256,
                learning_rate=1e-3,
                critic_learning_rate=2e-3,
                conditional_share=0.5,
                ema_decay=0.98,
            ),
            1,
            0.03,
        ),
    ),
}
