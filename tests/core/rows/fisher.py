"""Rows of the methods whose loss is an identity of scores."""

from typing import Any

from gaussian import MEAN, STD, Fault, Row, flow_map
from torch import Tensor

from service.methods.emd import EMDSettings
from service.methods.moment_matching import MomentMatchingSettings
from service.methods.sid import SiDSettings
from service.methods.sida import SiDASettings
from workers.diffusion.losses import distribution_gradient, follow, score_identity
from workers.methods import emd, sid, sida
from workers.templates import scores


def move_fake(method: Any, offset: float) -> None:
    """A fake score that has caught up with the samples."""
    method.fake.means += offset


def move_auxiliary(method: Any, offset: float) -> None:
    """An auxiliary network that has settled halfway between the samples and the teacher."""
    method.fake.means += offset / 2


def swapped(x: Tensor, real: Tensor, fake: Tensor, alpha: float) -> Tensor:
    return score_identity(x, fake, real, alpha)


def without_the_teacher(x: Tensor, real: Tensor, fake: Tensor, alpha: float) -> Tensor:
    """Only the squared distance of the scores, with its weight's sign: nothing says where x is."""
    return -alpha * (real - fake).square().mean(1)


DMD_LINE = {"iterations": 500, "batch_size": 512, "learning_rate": 5e-4, "fake_learning_rate": 2e-3, "ema_decay": 0.98}

ROWS = {
    "sid": Row(
        SiDSettings(iterations=1),
        lambda t, s: (STD, MEAN),  # noise to data
        short={"iterations": 12, "steps": 2, "fake_updates": 2},
        follow=move_fake,
        faults=[
            Fault(sid, "score_identity", swapped),  # swapped score
            Fault(sid, "score_identity", without_the_teacher),  # wrong weight
        ],
        through_scores=True,
        mixture=(SiDSettings(**DMD_LINE), 1, 0.02),
    ),
    "moment_matching": Row(
        MomentMatchingSettings(iterations=1, steps=4),
        lambda t, s: flow_map(t, 0.0),
        short={"iterations": 12, "steps": 2, "fake_updates": 2},
        follow=move_auxiliary,
        faults=[Fault(scores, "follow", lambda x, g: follow(x, -g))],  # sign error
        mixture=(MomentMatchingSettings(steps=4, **DMD_LINE), 4, 0.02),
    ),
    "sida": Row(
        SiDASettings(iterations=1, gan_weight=0),  # the oracle has no critic
        lambda t, s: (STD, MEAN),
        short={"iterations": 12, "steps": 2, "fake_updates": 2},
        follow=move_fake,
        faults=[Fault(sida, "score_identity", swapped)],  # swapped score; the critic's are in test_core_fisher.py
        through_scores=True,
        mixture=(SiDASettings(**DMD_LINE), 1, 0.02),
    ),
    "emd": Row(
        EMDSettings(iterations=1),
        lambda t, s: (STD, MEAN),
        short={"iterations": 12, "fake_updates": 2, "langevin_steps": 2, "latent_step": 0.01},
        follow=move_fake,
        faults=[
            Fault(emd, "distribution_gradient", lambda x, real, fake: distribution_gradient(x, fake, real)),  # swapped
            Fault(emd, "langevin", lambda x, force, step, noise=None: x - step * force),  # sign error
            # the drift keeps the noise: no cancellation
            Fault(emd, "langevin", lambda x, force, step, noise=None: (1 - step) * x + step * (force + 1)),
        ],
        mixture=(EMDSettings(**DMD_LINE), 1, 0.02),
    ),
}
