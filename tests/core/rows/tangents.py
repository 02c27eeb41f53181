"""Rows of the methods that learn from the student's own derivative along the flow."""

from typing import Any

from gaussian import MEAN, STD, Affinity, Fault, Row, alpha, flow_map, sigma, x0_of
from torch import Tensor

from service.methods.ayf import AYFSettings
from service.methods.meanflow import MeanFlowSettings
from service.methods.scm import SCMSettings
from workers.diffusion.jvp import one_sided
from workers.methods import ayf, scm
from workers.templates import tangent
from workers.templates.regression import Draw

STEP = 2e-3


def mean_flow(t: float, s: float) -> Affinity:
    """The flow map from t to s; where they meet, one DDIM step of the teacher."""
    if t - s > 1e-5:
        return x0_of(flow_map(t, s), t, s)
    variance = (alpha(t) * STD) ** 2 + sigma(t) ** 2
    return alpha(t) * STD**2 / variance, sigma(t) ** 2 * MEAN / variance


def backwards(*args: Any) -> Tensor:
    """The derivative with its sign wrong."""
    return -one_sided(*args)


def own_velocity(self: Any, at: Draw) -> Tensor:
    """The student's velocity in place of the teacher's."""
    return self.F(self.student, at.x, at.t, at.t, at.labels)


def unweighted(times: Tensor, like: Tensor) -> Tensor:
    """A factor of time left out."""
    return tangent.expand(times.sign(), like)


ROWS = {
    "meanflow": Row(
        MeanFlowSettings(iterations=1, difference_step=STEP),
        mean_flow,
        prediction="v",
        faults=[Fault(tangent, "one_sided", backwards)],  # sign
        mixture=(MeanFlowSettings(iterations=1300, batch_size=512, learning_rate=2e-3), 1, 0.012),
    ),
    "scm": Row(
        SCMSettings(iterations=1, difference_step=STEP, tangent_warmup=0),
        lambda t, _s: flow_map(t, 0.0),
        short={"iterations": 12, "tangent_warmup": 6},
        prediction="v",
        faults=[
            Fault(tangent, "one_sided", backwards),  # sign
            Fault(tangent.TangentMatch, "velocity", own_velocity),  # swapped velocity
            Fault(scm.SCM, "ramp", lambda *_: 0.5),  # weight
        ],
        mixture=(SCMSettings(iterations=1200, batch_size=512, learning_rate=2e-3, difference_step=0.2), 1, 0.006),
    ),
    "ayf": Row(
        AYFSettings(iterations=1, difference_step=STEP, tangent_warmup=0),
        mean_flow,
        short={"iterations": 12, "tangent_warmup": 6},
        prediction="v",
        faults=[Fault(ayf, "normalised", lambda g, c: -tangent.normalised(g, c))],  # sign
        mixture=(AYFSettings(iterations=1300, batch_size=512, learning_rate=2e-3), 1, 0.008),
    ),
}
