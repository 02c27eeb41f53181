"""A network that is told two times: it starts as its teacher, and leaves students that know one."""

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor

from workers.diffusion.jvp import directional
from workers.diffusion.paths import VPCosine, VPDiscrete
from workers.diffusion.sampler import SamplerSpec
from workers.models.mixture import six_modes
from workers.models.target_time import LabelAndTarget
from workers.models.unet2d import UNetDenoiser


def teacher(classes: int | None) -> UNetDenoiser:
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    channels = {"in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16), "norm_num_groups": 4}
    unet = UNet2DModel(sample_size=8, layers_per_block=1, num_class_embeds=classes, **channels, **blocks)
    alphas = torch.cos(torch.linspace(0.001, 1, 1000, dtype=torch.float64) * torch.pi / 2).clamp(min=1e-4) ** 2
    return UNetDenoiser(unet, VPDiscrete(alphas), "v").eval()


def told_two_times(classes: int | None) -> UNetDenoiser:
    """A student that listens to its target time."""
    student = teacher(classes).with_target()
    assert isinstance(student.unet.class_embedding, LabelAndTarget)
    for parameter in student.unet.class_embedding.target.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return student


def inputs(classes: int | None, t: float, s: float) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = None if classes is None else torch.arange(6) % (classes - 1)
    return x, torch.full((6,), t, dtype=torch.float64), torch.full((6,), s, dtype=torch.float64), labels


@pytest.mark.parametrize("classes", [None, 5])
@torch.no_grad()
def test_a_new_student_gives_what_its_teacher_gives_whatever_the_target(classes: int | None) -> None:
    start, student = teacher(classes), teacher(classes).with_target()
    for s in (0.0, 0.4):
        x, t, there, labels = inputs(classes, 0.7, s)
        assert torch.equal(student.predict(x, t, labels, s=there), start.predict(x, t, labels))


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize("classes", [None, 5])
@torch.no_grad()
def test_a_baked_student_is_a_stock_network_that_is_exact_at_its_steps(classes: int | None, steps: int) -> None:
    student = told_two_times(classes)
    spec = SamplerSpec("ddim", (steps,))
    plain = student.baked(spec.times(steps))
    assert plain.unet.state_dict().keys() == teacher(classes).unet.state_dict().keys()
    assert not plain.knows_target
    for t, s in spec.times(steps):
        x, now, then, labels = inputs(classes, t, s)
        expected = student.predict(x, now, labels, s=then)
        torch.testing.assert_close(plain.predict(x, now, labels), expected, rtol=0, atol=1e-5)
        assert (expected - teacher(classes).predict(x, now, labels)).abs().max() > 0.01, "the target makes a difference"


@pytest.mark.parametrize("classes", [None, 5])
@torch.no_grad()
def test_one_target_for_all_is_baked_exactly_whatever_its_time(classes: int | None) -> None:
    student = told_two_times(classes)
    plain = student.baked([(t / 200, 0.3) for t in range(200, 0, -1)])  # more times than the network has channels
    for t in (1.0, 0.731, 0.3, 0.002):
        x, now, then, labels = inputs(classes, t, 0.3)
        expected = student.predict(x, now, labels, s=then)
        torch.testing.assert_close(plain.predict(x, now, labels), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("step", [None, 1e-3])
def test_the_derivative_along_a_direction(step: float | None) -> None:
    """Of the closed-form denoiser along the flow, against a fine difference in float64."""
    mixture = six_modes().double()
    rng = torch.Generator().manual_seed(0)
    x, t = torch.randn(32, 2, generator=rng, dtype=torch.float64), torch.rand(32, generator=rng, dtype=torch.float64)
    t = 0.2 + 0.7 * t
    dx = mixture.predict(x, t, None, "flow")
    value, slope = directional(lambda y, u: mixture.predict(y, u, None), x, t, dx, torch.ones_like(t), step)
    h = 1e-5
    ahead, behind = (mixture.predict(x + k * dx, t + k, None) for k in (h, -h))
    assert torch.equal(value, mixture.predict(x, t, None))
    torch.testing.assert_close(slope, (ahead - behind) / (2 * h), rtol=2e-3, atol=2e-3)
    wrong = directional(lambda y, u: mixture.predict(y, u, None), x, t, -dx, torch.ones_like(t), step)[1]
    assert (wrong - slope).abs().max() > 0.1, "the direction counts"


@torch.no_grad()
def test_another_path_is_asked_at_equal_noise_for_both_times() -> None:
    student = told_two_times(None)
    x, t, s, _ = inputs(None, 0.6, 0.3)
    path = VPCosine()
    there = path.t_of_angle(student.path.angle(t)), path.t_of_angle(student.path.angle(s))
    asked = student.predict(x, there[0], None, path=path, s=there[1])
    torch.testing.assert_close(asked, student.predict(x, t, None, s=s), rtol=1e-4, atol=1e-4)
