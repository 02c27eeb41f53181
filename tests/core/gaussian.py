"""The closed-form oracle: a Gaussian teacher, affine students, and what each method must leave alone or change."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from service.methods.base import MethodSettings
from workers.data.source import Batch
from workers.diffusion.convert import Prediction, convert
from workers.diffusion.paths import Path, VPCosine
from workers.diffusion.solver import solve
from workers.diffusion.timesteps import even_grid
from workers.methods.base import Method
from workers.methods.registry import REGISTRY
from workers.models.denoiser import Denoiser
from workers.models.mixture import MixtureDenoiser
from workers.randomness import BatchRng

MEAN, STD = 0.6, 0.5

Affinity = tuple[float, float]
"""(gain, offset) of x -> gain x + offset."""

Solution = Callable[[float, float], Affinity]
"""The x0 that solves a method exactly, at the times t and s; s is 0 for students that are told one time."""


@dataclass(frozen=True)
class Fault:
    """Something planted: `module.name` is replaced by `by`, and the method's check must then fail."""

    module: Any
    name: str
    by: Any


@dataclass(frozen=True)
class Row:
    """What the tests know of one method.

    Args:
        settings: small, for the identities.
        short: changes to the settings that make a run of a dozen steps.
        solution: see above. None: the method has no affine solution, and a test of its own says what it does.
        follow: moves what follows the student (its average, its fake score) by an offset, as after convergence.
        faults: each must make the check of the solution fail.
        through_scores: whether gradients go through the frozen networks, by design.
        mixture: settings that learn the 2-D mixture in about ten seconds, the sampling steps, and the bar for ED.
        prepare: changes the method before the check of the solution.
        prediction: what the affine student predicts; v where a constant error of x0 would break f(x, 0) = x.
    """

    settings: MethodSettings
    solution: Solution | None
    short: dict[str, Any] = field(default_factory=lambda: {"iterations": 12})
    follow: Callable[[Any, float], None] = lambda method, offset: None
    faults: list[Fault] = field(default_factory=list)
    through_scores: bool = False
    mixture: tuple[MethodSettings, int, float] | None = None
    prepare: Callable[[Any], None] = lambda method: None
    prediction: Prediction = "x0"


def alpha(t: float) -> float:
    return math.cos(math.pi * t / 2)


def sigma(t: float) -> float:
    return math.sin(math.pi * t / 2)


def ddim_map(t: float, s: float) -> Affinity:
    """One DDIM step of the Gaussian teacher, x_s = gain x_t + offset."""
    a, e = alpha(t), sigma(t)
    variance = (a * STD) ** 2 + e**2
    d_gain, d_offset = a * STD**2 / variance, e**2 * MEAN / variance
    return alpha(s) * d_gain + sigma(s) * (1 - a * d_gain) / e, (alpha(s) - sigma(s) * a / e) * d_offset


def flow_map(t: float, s: float) -> Affinity:
    """The probability flow itself: x_s = alpha_s m + sqrt(V_s/V_t)(x_t - alpha_t m), V = alpha^2 STD^2 + sigma^2."""
    root = math.sqrt(((alpha(s) * STD) ** 2 + sigma(s) ** 2) / ((alpha(t) * STD) ** 2 + sigma(t) ** 2))
    return root, (alpha(s) - root * alpha(t)) * MEAN


def x0_of(jump: Affinity, t: float, s: float) -> Affinity:
    """The x0 with which one DDIM step from t to s is `jump`."""
    keep = sigma(s) / sigma(t)
    scale = 1 / (alpha(s) - keep * alpha(t))
    return scale * (jump[0] - keep), scale * jump[1]


def compose(after: Affinity, before: Affinity) -> Affinity:
    return after[0] * before[0], after[0] * before[1] + after[1]


class Affine(Denoiser):
    """x0 = gain(t, s) x + offset(t, s) solves the method. The prediction, x0 or what x0 is converted to, is off by
    dg x + do: both should be 0."""

    def __init__(self, solution: Solution, knows_target: bool = False, prediction: Prediction = "x0") -> None:
        super().__init__()
        self.path: Path = VPCosine()
        self.prediction, self.shape, self.knows_target = prediction, (1,), knows_target
        self.solution = functools.cache(solution)
        self.dg, self.do = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        ends = torch.zeros_like(t) if s is None else s
        solved = [self.solution(*times) for times in zip(t.tolist(), ends.tolist(), strict=True)]
        gain, offset = torch.tensor(solved, dtype=x.dtype).reshape(-1, 2).split(1, dim=1)  # also of no rows
        right = convert(x, t, gain * x + offset, "x0", self.prediction, self.path)
        return right + self.dg * x + self.do

    def with_conditions(self, copies: int) -> Denoiser:
        raise NotImplementedError

    def with_target(self) -> Denoiser:
        return Affine(self.solution, True, self.prediction)


class GaussianTeacher(MixtureDenoiser):
    """N(MEAN, STD^2) in one dimension. What starts from it is `student`, what its fake score starts from is itself."""

    def __init__(self, student: Denoiser | None = None) -> None:
        super().__init__(torch.ones(1), torch.full((1, 1), MEAN), torch.tensor([STD]), network=student)
        self.feature_channels = (1,)

    def raw_features(self, x: Tensor, t: Tensor, labels: Tensor | None) -> list[Tensor]:
        return [x]

    def with_conditions(self, copies: int) -> Denoiser:
        return GaussianTeacher()


def make(kind: str, row: Row) -> tuple[Method[Any], Affine]:
    assert row.solution is not None
    teacher = GaussianTeacher(Affine(row.solution, prediction=row.prediction))
    method = REGISTRY[kind](row.settings, teacher, teacher)
    assert isinstance(method.student, Affine)
    row.prepare(method)
    return method, method.student


def gaussian_batch(method: Method[Any], size: int) -> Batch:
    """Exact data, or exact pairs where the method learns from pairs."""
    rng = torch.Generator().manual_seed(0)
    if method.data_need == "pairs":
        noise = torch.randn(size, 1, generator=rng)
        grid = even_grid(64)
        images = solve(lambda x, t: method.teacher.predict(x, t, None), noise, grid, method.path, "dpm2")
        return Batch(images, None, noise)
    return Batch(MEAN + STD * torch.randn(size, 1, generator=rng), None)


def gradients(kind: str, row: Row, offset: float) -> tuple[float, float]:
    """d loss/d offset and d loss/d gain of the student whose x0 is off by `offset`; so is what follows it."""
    method, student = make(kind, row)
    with torch.no_grad():
        student.do += offset
        row.follow(method, offset)
    method.loss("student", gaussian_batch(method, 8192), 0, BatchRng(0, batch_size=8192)).loss.backward()
    assert student.do.grad is not None
    assert student.dg.grad is not None
    return student.do.grad.item(), student.dg.grad.item()


def check_solution(kind: str, row: Row) -> None:
    """The loss is at a minimum at the exact solution: no gradient there, and descent leads back to it.

    The gain counts as well: every map of Gaussians takes the mean to the mean, however wrong its noise is.
    """
    up, _ = gradients(kind, row, 0.2)
    down, _ = gradients(kind, row, -0.2)
    offset, gain = gradients(kind, row, 0.0)
    scale = abs(up)
    assert scale > 1e-3
    assert abs(offset) < 0.01 * scale, "the exact solution is no stationary point"
    assert abs(gain) < 0.02 * scale, "the exact solution is no stationary point"
    assert up > 0, "descent leads away from the solution"
    assert down < 0, "descent leads away from the solution"
