"""Methods that learn from the student's own derivative: what that derivative must be, and where it must lead."""

import contextlib
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from gaussian import MEAN, STD, Fault, GaussianTeacher, gaussian_batch
from pydantic import ValidationError
from rows.tangents import backwards, own_velocity, unweighted
from torch import Tensor, nn

from service.methods import METHODS
from service.methods.base import MethodSettings
from workers.diffusion.convert import convert
from workers.diffusion.jvp import one_sided
from workers.diffusion.losses import per_sample
from workers.diffusion.paths import VPCosine, VPDiscrete, expand
from workers.diffusion.solver import invert_target, jump
from workers.methods import ayf, meanflow, scm
from workers.methods.registry import REGISTRY
from workers.models.denoiser import Denoiser
from workers.models.mixture import MlpDenoiser, six_modes
from workers.models.unet2d import UNetDenoiser
from workers.randomness import BatchRng
from workers.templates import tangent
from workers.templates.regression import Draw
from workers.templates.tangent import TangentMatch

OTHER_MEAN = 0.9
SIZE = 512


class GaussianMap(Denoiser):
    """The exact flow map from t to s of N(mean, STD^2), differentiable in everything; it predicts v, off by `error`."""

    def __init__(self, mean: float, knows_target: bool = False) -> None:
        super().__init__()
        self.path, self.prediction, self.shape, self.knows_target = VPCosine(), "v", (1,), knows_target
        self.mean, self.error = mean, nn.Parameter(torch.zeros(()))

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        s = torch.zeros_like(t) if s is None else s
        alpha_t, alpha_s = self.path.alpha(t), self.path.alpha(s)
        variance_t, variance_s = (a**2 * STD**2 + 1 - a**2 for a in (alpha_t, alpha_s))
        root = (variance_s / variance_t).sqrt()
        wide = x.double()
        x_s = expand(alpha_s * self.mean, wide) + expand(root, wide) * (wide - expand(alpha_t * self.mean, wide))
        v = convert(wide, t, invert_target(wide, x_s, t, s, self.path), "x0", "v", self.path)
        return v.to(x) + self.error

    def with_conditions(self, copies: int) -> Denoiser:
        raise NotImplementedError

    def with_target(self) -> Denoiser:
        return GaussianMap(self.mean, knows_target=True)


VARIANTS: dict[str, MethodSettings] = {
    "meanflow": METHODS["meanflow"](equal_share=0),
    "scm": METHODS["scm"](tangent_warmup=0),
    "ayf": METHODS["ayf"](tangent_warmup=0),
    "ayf-lagrangian": METHODS["ayf"](tangent_warmup=0, objective="lagrangian"),
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def method(variant: str, mean: float = MEAN, **changes: Any) -> TangentMatch[Any]:
    """The method, with the exact student of a Gaussian."""
    settings = VARIANTS[variant].model_copy(update=changes)
    teacher = GaussianTeacher(GaussianMap(mean))
    made = REGISTRY[settings.kind](settings, teacher, teacher)
    assert isinstance(made, TangentMatch)
    return made


def draw(made: TangentMatch[Any]) -> tuple[Draw, Tensor]:
    """Where `loss` asks the student, and what it answers there."""
    batch, rng = gaussian_batch(made, SIZE), BatchRng(0, batch_size=SIZE)
    t, s = (made.inside(times) for times in made.times(rng))
    noise = rng.normal((1,))
    at = Draw(made.flow_path.add_noise(batch.images, noise, t), t, s, None, batch.images, noise, 0)
    return at, made.F(made.student, at.x, t, s, None)


def tangent_size(variant: str, mean: float, **changes: Any) -> float:
    made = method(variant, mean, **changes)
    return made.tangent(*draw(made)).square().mean().sqrt().item()


def check(variant: str, step: float | None) -> None:
    """The exact flow map alone has no tangent, and the gradient is that of a target held fixed."""
    with torch.set_grad_enabled(False):  # not no_grad: that is what a fault may replace
        assert tangent_size(variant, MEAN, difference_step=step) < (3e-3 if step is None else 1.2 * step)
        assert tangent_size(variant, OTHER_MEAN, difference_step=step) > 0.1

    made = method(variant, difference_step=step)
    student = made.student
    assert isinstance(student, GaussianMap)
    student.error.data += 0.2
    made.loss("student", gaussian_batch(made, SIZE), 0, BatchRng(0, batch_size=SIZE)).loss.backward()
    at, F = draw(made)
    with torch.set_grad_enabled(False):
        target = F + made.tangent(at, F)
    (expected,) = torch.autograd.grad(made.distance(F, target, at).mean(), student.error)
    assert student.error.grad is not None
    torch.testing.assert_close(student.error.grad, expected, rtol=1e-3, atol=1e-6)
    assert expected.item() > 0, "descent leads away from the solution"


@pytest.mark.parametrize("step", [None, 0.01, 0.05])
@every_variant
def test_the_exact_flow_map_alone_has_no_tangent(variant: str, step: float | None) -> None:
    check(variant, step)


class Careless:
    """torch without its no_grad."""

    no_grad = contextlib.nullcontext

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


NO_STOP = (Fault(tangent, "torch", Careless()), Fault(tangent, "one_sided", one_sided.__wrapped__))


def wrong_way(g: Tensor, c: float) -> Tensor:
    return -tangent.normalised(g, c)


FAULTS = [
    *((variant, "a sign", Fault(tangent, "one_sided", backwards)) for variant in VARIANTS),
    *((variant, "no stop-gradient", *NO_STOP) for variant in VARIANTS),
    *(
        (variant, "swapped velocity", Fault(TangentMatch, "velocity", own_velocity))
        for variant in VARIANTS
        if variant != "ayf-lagrangian"
    ),
    ("meanflow", "a weight", Fault(meanflow, "expand", unweighted)),
    ("scm", "a weight", Fault(scm, "expand", unweighted)),
    ("ayf", "a weight", Fault(ayf.AYF, "ramp", lambda *_: 0.5)),
    ("ayf-lagrangian", "a weight", Fault(ayf.AYF, "ramp", lambda *_: 0.5)),
    ("scm", "a sign of all", Fault(scm, "normalised", wrong_way)),
    ("ayf", "a sign of all", Fault(ayf, "normalised", wrong_way)),
]


@pytest.mark.parametrize(
    ("variant", "faults"), [(v, faults) for v, _, *faults in FAULTS], ids=[f"{v}: {n}" for v, n, *_ in FAULTS]
)
def test_a_planted_fault_fails_the_check_of_the_tangent(
    variant: str, faults: list[Fault], monkeypatch: pytest.MonkeyPatch
) -> None:
    for fault in faults:
        monkeypatch.setattr(fault.module, fault.name, fault.by)
    with pytest.raises(AssertionError):
        check(variant, 0.05)


@pytest.mark.parametrize("kind", ["meanflow", "scm", "ayf"])
def test_the_velocity_of_the_data_is_the_teachers_on_average(kind: str) -> None:
    """E[velocity of image and noise | x] is the velocity of the flow: so both have the same solution."""
    made = method(kind, velocity="data")
    batch, rng = gaussian_batch(made, 200_000), BatchRng(0, batch_size=200_000)
    t = torch.full((200_000,), 0.6, dtype=torch.float64)
    noise = rng.normal((1,))
    x = made.flow_path.add_noise(batch.images, noise, t)
    own = made.velocity(Draw(x, t, t, None, batch.images, noise, 0))
    flow = made.F(made.teacher, x, t, t, None)
    centred = x - x.mean()
    for weight in (torch.ones_like(x), centred):
        assert (weight * (own - flow)).mean().abs().item() < 0.01


def test_the_part_with_the_derivative_grows_while_training_starts() -> None:
    made = method("scm", tangent_warmup=4)
    seen = []
    for _ in range(6):
        seen.append(made.ramp(made.settings.tangent_warmup))
        made.after_step()
    assert seen == [0, 0.25, 0.5, 0.75, 1, 1]
    at, F = draw(method("scm", OTHER_MEAN, tangent_warmup=4))
    start = method("scm", OTHER_MEAN, tangent_warmup=4).tangent(at, F)
    towards = made.velocity(at) - F
    assert bool((start * towards >= 0).all()), "at first F just goes to the velocity"


def test_the_learned_weight_evens_out_the_error_of_all_times() -> None:
    teacher = six_modes(MlpDenoiser(width=32))
    made = scm.SCM(METHODS["scm"](learned_weight=True), teacher, teacher)
    assert made.turns(0) == ["student", "weight"]
    t = torch.linspace(0.1, 1.5, 256, dtype=torch.float64)
    error = 0.1 + 0.05 * t[:, None].float()
    optimizer = torch.optim.Adam(made.weight.parameters(), lr=0.05)
    at = Draw(error, t, t, None, error, error, 0)
    for _ in range(300):
        optimizer.zero_grad()
        made.distance(error.sqrt(), torch.zeros_like(error), at).mean().backward()
        optimizer.step()
    weighted = made.weight(t).exp() * per_sample(error)
    torch.testing.assert_close(weighted, torch.ones_like(weighted), rtol=0, atol=0.15)


def unet(attention: bool) -> UNetDenoiser:
    torch.manual_seed(0)
    down = ("DownBlock2D", "AttnDownBlock2D" if attention else "DownBlock2D")
    up = ("AttnUpBlock2D" if attention else "UpBlock2D", "UpBlock2D")
    channels = {"in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16), "norm_num_groups": 4}
    blocks = {"down_block_types": down, "up_block_types": up, "add_attention": attention, "attention_head_dim": 8}
    net = UNet2DModel(sample_size=8, layers_per_block=1, num_class_embeds=4, **channels, **blocks)
    alphas = torch.cos(torch.linspace(0.001, 1, 1000, dtype=torch.float64) * torch.pi / 2).clamp(min=1e-4) ** 2
    return UNetDenoiser(net, VPDiscrete(alphas), "v").eval()


@pytest.mark.parametrize("time", ["t", "s"])
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("kind", ["meanflow", "scm", "ayf"])
def test_forward_mode_and_difference_agree_on_a_unet(kind: str, attention: bool, time: Any) -> None:
    """Also with attention, whose fast kernels have no forward derivative, and with gradient checkpoints on."""
    teacher = unet(attention)
    slopes = []
    for step in (None, 1e-4):
        torch.manual_seed(0)
        made = REGISTRY[kind](METHODS[kind](difference_step=step), teacher, teacher)
        assert isinstance(made, TangentMatch)
        assert isinstance(made.student, UNetDenoiser)
        if made.student.knows_target:
            for parameter in made.student.unet.class_embedding.target.parameters():
                nn.init.normal_(parameter, std=0.3)
        made.student.unet.enable_gradient_checkpointing()
        made.student.unet.train()
        generator = torch.Generator().manual_seed(1)
        x, dx = torch.randn(2, 8, 1, 8, 8, generator=generator)
        t = torch.linspace(0.3, 0.9, 8, dtype=torch.float64)
        at = Draw(x, t, t / 2, torch.arange(8) % 3, x, x, 0)
        with torch.no_grad():
            F = made.F(made.student, x, t, at.s, at.labels)
        slopes.append(made.slope(at, F, dx if time == "t" else torch.zeros_like(dx), time))
    assert not slopes[0].requires_grad
    if kind == "scm" and time == "s":  # which is not told s
        assert float(slopes[0].abs().max()) == float(slopes[1].abs().max()) == 0
        return
    assert float(slopes[0].square().mean()) > 1e-3
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0.05, atol=0.05 * float(slopes[0].abs().max()))


def test_a_guided_teacher_needs_the_teachers_velocity() -> None:
    for kind in ("meanflow", "scm", "ayf"):
        METHODS[kind](guidance_scale=2)
        with pytest.raises(ValidationError, match="cannot be guided"):
            METHODS[kind](guidance_scale=2, velocity="data")


def test_a_step_of_the_mean_flow_is_a_ddim_step() -> None:
    """x + (s - t) F on the straight path is where DDIM with the same network goes on any path."""
    made = method("meanflow")
    at, F = draw(made)
    straight = at.x + expand(at.s - at.t, F) * F
    x0 = made.student.predict(at.x, at.t, None, "x0", made.flow_path, at.s)
    torch.testing.assert_close(jump(at.x, x0, at.t, at.s, made.flow_path), straight, rtol=1e-4, atol=1e-5)
