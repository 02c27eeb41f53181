"""Straight lines: where they run, that their exact solution leaves no loss, and which steps change what they join."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from gaussian import MEAN, STD, GaussianTeacher, gaussian_batch, make
from rows import ROWS
from torch import Tensor

from service.methods.flowdreamer import FlowDreamerSettings
from service.methods.slimflow import SlimFlowSettings
from workers.data.source import Batch
from workers.diffusion import losses
from workers.diffusion.paths import RectifiedFlow, VPCosine
from workers.diffusion.solver import jump
from workers.diffusion.timesteps import from_straight, u_shaped
from workers.methods.flowdreamer import FlowDreamer
from workers.methods.slimflow import SlimFlow
from workers.models.mixture import MlpDenoiser, six_modes
from workers.randomness import BatchRng
from workers.templates import straight
from workers.templates.scores import Compared, Samples
from workers.templates.straight import Straight


def loss(kind: str, segment: int, batch: Batch | None = None) -> float:
    """Of the exact solution."""
    method, _ = make(kind, ROWS[kind])
    batch = batch or gaussian_batch(method, 256)
    with torch.no_grad():
        return method.loss("student", batch, segment, BatchRng(0, batch_size=256)).loss.item()


KINDS = [("reflow", 0), ("instaflow", 0), ("instaflow", 1), ("perflow", 0), ("slimflow", 0), ("slimflow", 1)]


@pytest.mark.parametrize(("kind", "segment"), KINDS)
def test_the_exact_solution_leaves_no_loss(kind: str, segment: int) -> None:
    assert loss(kind, segment) < 1e-5


@pytest.mark.parametrize(("kind", "segment"), [case for case in KINDS if case[0] != "perflow"])
def test_images_with_noises_that_are_not_theirs_leave_one(kind: str, segment: int) -> None:
    pairs = gaussian_batch(make(kind, ROWS[kind])[0], 256)
    assert pairs.noise is not None
    assert loss(kind, segment, replace(pairs, noise=pairs.noise.flip(0))) > 0.05


def velocity_loss() -> tuple[float, float]:
    """Reflow's loss, and the mean of |u - (eps - x0)|^2 with u asked on the path of rectified flow."""
    torch.manual_seed(0)
    teacher, flow = MlpDenoiser(), RectifiedFlow()
    method: Any = straight_method(teacher)
    x0, eps = torch.randn(2, 64, 2)
    tau = u_shaped(BatchRng(0, batch_size=64).uniform())
    u = teacher.predict(flow.add_noise(x0, eps, tau), tau, None, "flow", flow)
    with torch.no_grad():
        ours = method.loss("student", Batch(x0, None, eps), 0, BatchRng(0, batch_size=64)).loss.item()
    return ours, (u - (eps - x0)).square().mean().item()


def straight_method(teacher: MlpDenoiser) -> Straight[Any]:
    class Plain(Straight[Any]):
        pass

    return Plain(ROWS["reflow"].settings, teacher, teacher)


def test_the_loss_is_that_of_the_velocity_on_the_straight_path() -> None:
    ours, exact = velocity_loss()
    assert ours == pytest.approx(exact, rel=1e-3)


def test_another_weight_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(straight, "flow_weight", losses.v_weight)
    ours, exact = velocity_loss()
    assert abs(ours / exact - 1) > 0.05


def test_places_on_the_line_are_u_shaped_and_have_its_snr() -> None:
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    tau, path = u_shaped(u), VPCosine()
    assert float(tau.min()) > 0
    assert float(tau.max()) < 1
    found = torch.histc(tau, 10, 0, 1) / 100_000
    edges = torch.linspace(0, 1, 11, dtype=torch.float64)
    mass = torch.sinh(4 * (edges - 0.5)) / (2 * math.sinh(2))
    torch.testing.assert_close(found, mass.diff(), rtol=0, atol=1e-4)
    t = from_straight(tau, path)
    torch.testing.assert_close(path.sigma(t) / path.alpha(t), tau / (1 - tau))


def slimflow(**settings: Any) -> SlimFlow:
    torch.manual_seed(0)
    teacher = MlpDenoiser(width=16)
    return SlimFlow(SlimFlowSettings(**settings), teacher, teacher)


def test_annealing_goes_from_fresh_noises_to_the_pairs_own() -> None:
    method = slimflow(iterations=20, annealing=0.5)
    images, noise = torch.zeros(4096, 2), torch.randn(4096, 2)
    overlap = []
    for _ in range(12):
        at = method.draw(Batch(images, None, noise), 0, BatchRng(0, batch_size=4096))
        assert float(at.noise.var()) == pytest.approx(1, abs=0.1)
        overlap.append(float((at.noise * noise).mean()))
        method.after_step()
    assert overlap[0] == pytest.approx(0, abs=0.05)
    assert overlap[5] == pytest.approx(math.sqrt(1 - 0.5**2), abs=0.05)
    assert torch.equal(at.noise, noise)


def test_the_distillation_is_guided_by_two_steps_of_the_flow_for_fresh_noises_alone() -> None:
    method = slimflow(flow_guided=0.25)
    with torch.no_grad():
        next(method.student.parameters()).add_(1)
    method.next_segment()
    images, noise = torch.randn(2, 64, 2)
    at = method.draw(Batch(images, None, noise), 1, BatchRng(0, batch_size=64))
    with torch.no_grad():
        target = method.target(at)
        x_s = jump(at.x, method.student.predict(at.x, at.t, None), at.t, at.s.clamp(min=0.01), method.path)
        two = method.student.predict(x_s, at.s.clamp(min=0.01), None)
    guided = at.s > 0
    assert int(guided.sum()) == 16
    assert bool((at.t == 1).all())
    assert torch.equal(target[~guided], images[~guided])
    assert torch.equal(at.x[~guided], noise[~guided])
    assert not bool((at.x[guided] == noise[guided]).any())
    torch.testing.assert_close(target[guided], two[guided])


def couple(steps: int, x: Tensor) -> Tensor:
    teacher = GaussianTeacher(MlpDenoiser(1))
    method = FlowDreamer(FlowDreamerSettings(inversion_steps=steps), teacher, teacher)
    samples = Samples(x, None, torch.zeros(len(x), dtype=torch.long))
    return method.noise(samples, torch.zeros(len(x), dtype=torch.float64), BatchRng(0, batch_size=len(x)))


def test_pushing_a_sample_backward_finds_the_noise_that_it_comes_from() -> None:
    x = torch.linspace(-1, 2, 31)[:, None]
    exact = (x - MEAN) / STD
    errors = [(couple(steps, x) - exact).abs().max().item() for steps in (8, 64, 512)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05


def test_a_sample_and_its_noise_are_not_moved_apart_by_a_straight_teacher() -> None:
    """Where the teacher's velocity is that of the couple, there is nothing to learn."""
    teacher = six_modes(MlpDenoiser())
    method = FlowDreamer(FlowDreamerSettings(), teacher, teacher)
    x, eps = torch.randn(2, 8, 2)
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    u = eps - x
    flow = RectifiedFlow()
    tau = flow.t_of_angle(method.path.angle(t))
    real = flow.add_noise(x, eps, tau) - tau[:, None].float() * (u + 1)  # the x0 of a velocity that is off by one
    compared = Compared(Samples(x, None, torch.zeros(8)), x, t, real, x)
    torch.testing.assert_close(method.gradient(compared), torch.ones(8, 2), rtol=1e-3, atol=1e-3)
