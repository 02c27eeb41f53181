"""Rows of the methods that learn jumps from any time to any earlier one by comparing jumps."""

from dataclasses import replace
from typing import Any

from gaussian import Affinity, Fault, Row, compose, ddim_map, x0_of
from torch import Tensor

from rows.first import flipped_step
from rows.tangents import mean_flow
from service.methods.ctm import CTMSettings
from service.methods.scot import SCoTSettings
from service.methods.shortcut import ShortcutSettings
from workers.diffusion.paths import VPCosine, expand
from workers.methods import shortcut
from workers.templates import flow_map, soft_consistency
from workers.templates.regression import Draw

DOUBLINGS = 3


def teacher_steps(t: float, s: float) -> Affinity:
    """The teacher's smallest steps from t to s."""
    total, cells = (1.0, 0.0), 2**DOUBLINGS
    for i in range(round(t * cells), round(s * cells), -1):
        total = compose(ddim_map(i / cells, (i - 1) / cells), total)
    return x0_of(total, t, s)


def unequal_step(x: Tensor, x0: Tensor, t: Tensor, s: Tensor, path: VPCosine) -> Tensor:
    """DDIM with the weight of x squared."""
    keep = (path.sigma(s) / path.sigma(t)) ** 2
    return expand(path.alpha(s) - keep * path.alpha(t), x) * x0 + expand(keep, x) * x


def by_teacher(method: Any, at: Draw, rule: Any) -> Tensor:
    """The target with the teacher where the averaged student should be."""
    average, method.average = method.average, method.teacher
    target: Tensor = rule(method, at)
    method.average = average
    return target


def even_halves(self: Any, at: Draw) -> Tensor:
    """The two halves' x0 with equal weights."""
    middle = (at.t + at.s) / 2
    first = self.average.predict(at.x, at.t, at.labels, s=middle)
    x_middle = self.map(self.average, at.x, at.t, middle, at.labels)
    return (first + self.average.predict(x_middle, middle, at.labels, s=at.s)) / 2


HALF_STEPS = shortcut.Shortcut.half_steps
SOLVE, TARGET = soft_consistency.SoftConsistency.solve, soft_consistency.SoftConsistency.target

SOFT_FAULTS = [
    Fault(flow_map, "jump", flipped_step),  # sign
    Fault(flow_map, "jump", unequal_step),  # weight
    Fault(soft_consistency.SoftConsistency, "target", lambda self, at: by_teacher(self, at, TARGET)),  # network
    Fault(soft_consistency.SoftConsistency, "solve", lambda self, at: SOLVE(self, replace(at, u=at.s))),  # time
]

ROWS = {
    "shortcut": Row(
        ShortcutSettings(iterations=1, doublings=DOUBLINGS),
        teacher_steps,
        faults=[
            Fault(flow_map, "jump", flipped_step),  # sign
            Fault(shortcut.Shortcut, "half_steps", even_halves),  # weight
            Fault(shortcut.Shortcut, "half_steps", lambda self, at: by_teacher(self, at, HALF_STEPS)),  # network
        ],
        mixture=(ShortcutSettings(iterations=1200, batch_size=512, learning_rate=2e-3), 1, 0.006),
    ),
    "ctm": Row(
        CTMSettings(iterations=1, grid_steps=8, solver_steps=16),
        mean_flow,
        short={"iterations": 12, "solver_steps": 1},
        faults=SOFT_FAULTS,
        mixture=(CTMSettings(iterations=700, batch_size=512, learning_rate=2e-3), 1, 0.006),
    ),
    "scot": Row(
        SCoTSettings(iterations=1, grid_steps=8, solver_steps=16, velocity_weight=0),  # see test_core_flow_maps.py
        mean_flow,
        short={"iterations": 12, "solver_steps": 1},
        faults=SOFT_FAULTS,
        mixture=(SCoTSettings(iterations=700, batch_size=512, learning_rate=2e-3), 1, 0.008),
    ),
}
