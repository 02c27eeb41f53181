"""Flow maps: where gradients go, how straight is measured, and the students that a stage of them leaves."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gaussian import flow_map, gaussian_batch, make, x0_of
from rows import ROWS
from torch import Tensor

from service.spec import JobSpec
from workers import finish, stages
from workers.data.source import Batch
from workers.methods.ctm import CTM
from workers.methods.scot import SCoT
from workers.models.mixture import MlpDenoiser
from workers.models.target_time import LabelAndTarget
from workers.models.unet2d import load_teacher
from workers.randomness import BatchRng
from workers.templates import soft_consistency
from workers.templates.soft_consistency import Trip

TEACHER = Path(stages.__file__).parent / "assets" / "digits" / "teacher"
SHORTCUT = {"kind": "shortcut", "iterations": 3, "batch_size": 4}
CTM_STAGE = {"kind": "ctm", "iterations": 3, "batch_size": 4, "solver_steps": 1}
DMD2_STAGE = {"kind": "dmd2", "iterations": 1, "batch_size": 4, "fake_updates": 1}


def consistency_gradient(last_jump_by_a_copy: bool) -> Tensor:
    torch.manual_seed(0)
    teacher = MlpDenoiser(width=32)
    method = CTM(ROWS["ctm"].settings.model_copy(update={"solver_steps": 1}), teacher, teacher)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))  # a student that is not there yet
    trip = method.trip(points(64), 0, BatchRng(0, batch_size=64))
    x0 = trip.x0
    if last_jump_by_a_copy:
        copy = method.student.frozen_copy()
        x0 = method.map(copy, trip.x_s, trip.s, torch.zeros_like(trip.s), None)
        torch.testing.assert_close(x0, trip.x0)
    method.distance(x0, trip.x0_target, trip).mean().backward()
    return torch.cat([p.grad.flatten() for p in method.student.parameters() if p.grad is not None])


def points(n: int) -> Batch:
    return Batch(torch.randn(n, 2, generator=torch.Generator().manual_seed(5)), None)


def test_the_last_jump_teaches_the_first_but_does_not_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = consistency_gradient(last_jump_by_a_copy=False)
    torch.testing.assert_close(frozen, consistency_gradient(last_jump_by_a_copy=True), rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(soft_consistency, "frozen", nullcontext)  # the planted fault: no stop-gradient
    leaky = consistency_gradient(last_jump_by_a_copy=False)
    assert (leaky - frozen).norm() > 0.1 * frozen.norm()


def test_weights_that_were_held_fixed_learn_again() -> None:
    network = MlpDenoiser(width=8)
    first = next(network.parameters()).requires_grad_(False)
    with soft_consistency.frozen(network):
        assert not any(p.requires_grad for p in network.parameters())
    assert not first.requires_grad
    assert all(p.requires_grad for p in list(network.parameters())[1:])


def straight(t: float, _s: float) -> tuple[float, float]:
    """The same x0 wherever the jump leads: the end of the teacher's trajectory."""
    return x0_of(flow_map(t, 0.0), t, 0.0)


def velocity_gradient(offset: float) -> tuple[float, float]:
    """The velocity term of a straight map whose x0 is off by `offset`, and its derivative."""
    method, student = make("scot", replace(ROWS["scot"], solution=straight))
    assert isinstance(method, SCoT)
    with torch.no_grad():
        student.do += offset
    trip = method.trip(gaussian_batch(method, 512), 0, BatchRng(0, batch_size=512))
    gain, shift = torch.tensor([flow_map(t, 0.0) for t in trip.t.tolist()], dtype=torch.float32).unbind(1)
    trip = replace(trip, x0_target=gain[:, None] * trip.x + shift[:, None])
    loss = method.velocity(trip).mean()
    loss.backward()
    assert student.do.grad is not None
    return loss.item(), student.do.grad.item()


def test_a_straight_map_has_one_velocity() -> None:
    loss, slope = velocity_gradient(0.0)
    assert loss < 1e-5
    assert abs(slope) < 1e-2 * abs(velocity_gradient(0.2)[1])
    assert velocity_gradient(0.2)[1] > 1e-3
    assert velocity_gradient(-0.2)[1] < -1e-3


def negative(self: SCoT, x: Tensor, t: Tensor) -> Tensor:
    return -LINE(self, x, t)


def noise_share(self: SCoT, t: Tensor) -> Tensor:
    return self.path.sigma(t)


def the_other_end(self: SCoT, at: Trip) -> Tensor:
    return VELOCITY(self, replace(at, x0_target=at.noise))


LINE, VELOCITY = SCoT.line, SCoT.velocity


@pytest.mark.parametrize(
    ("name", "by"),
    [("line", negative), ("tau", noise_share), ("velocity", the_other_end)],
    ids=["sign", "weight", "swapped-ends"],
)
def test_a_planted_fault_bends_the_straight_map(name: str, by: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCoT, name, by)
    with pytest.raises(AssertionError):
        test_a_straight_map_has_one_velocity()


def test_a_step_to_where_it_starts_changes_nothing() -> None:
    method, student = make("ctm", ROWS["ctm"])
    assert isinstance(method, CTM)
    with torch.no_grad():
        student.do += 1
    x = torch.linspace(-2, 2, 8)[:, None].requires_grad_(True)
    for t in (torch.zeros(8, dtype=torch.float64), torch.linspace(0, 1, 8, dtype=torch.float64)):
        stayed = method.map(method.student, x, t, t, None)
        assert torch.equal(stayed, x)
        (grad,) = torch.autograd.grad(stayed.sum(), x)
        assert torch.equal(grad, torch.ones_like(x))


@pytest.mark.parametrize("kind", ["ctm", "scot"])
def test_times_are_of_the_grid_and_in_order(kind: str) -> None:
    method, _ = make(kind, ROWS[kind])
    at = method.draw(gaussian_batch(method, 4096), 0, BatchRng(0, batch_size=4096))
    assert bool(((at.s >= 0) & (at.s <= at.u) & (at.u < at.t) & (at.t <= 1)).all())
    for times in (at.t, at.u, at.s):
        torch.testing.assert_close(times * 8, (times * 8).round(), rtol=0, atol=1e-9)
    assert {0.0, 0.875} <= set(at.s.tolist())
    assert {0.125, 1.0} <= set(at.t.tolist())
    assert set(at.u.tolist()) == set(at.s.tolist())


def test_a_shortcut_lies_on_the_grid_of_its_length_and_the_shortest_asks_the_teacher() -> None:
    method, _ = make("shortcut", ROWS["shortcut"])
    t, s = method.times(BatchRng(0, batch_size=4096), 0)  # type: ignore[attr-defined]
    length = t - s
    assert sorted(set(length.tolist())) == [0.125, 0.25, 0.5, 1.0]
    torch.testing.assert_close(t / length, (t / length).round(), rtol=0, atol=0)
    shares = [(length == d).double().mean().item() for d in (0.125, 0.25, 0.5, 1.0)]
    assert shares == pytest.approx([0.25] * 4, abs=0.01)
    asked: list[int] = []
    inner = method.teacher.raw
    method.teacher.raw = lambda x, *rest, **named: asked.append(len(x)) or inner(x, *rest, **named)  # type: ignore[method-assign,func-returns-value]
    method.loss("student", gaussian_batch(method, 4096), 0, BatchRng(0, batch_size=4096))
    assert asked == [int((length == 0.125).sum())]


def job(*methods: dict[str, Any]) -> JobSpec:
    return JobSpec.model_validate(
        {
            "teacher": "digits",
            "preview_every": 3,
            "checkpoint_every": 2,
            "evaluation": {"teacher_steps": 2},
            "stages": [{"method": m} for m in methods],
        }
    )


def test_a_chain_of_flow_maps_leaves_stock_students_for_each_number_of_steps(
    monkeypatch: pytest.MonkeyPatch, local_host: Any, tmp_path: Path
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(finish, "export", lambda _, network, *rest, **more: calls.append((network().unet, *rest)))
    spec, host = job(SHORTCUT, CTM_STAGE, DMD2_STAGE), local_host(tmp_path)
    host.stop_at = 5  # in the second stage
    stages.run(spec, TEACHER, host)
    host.stop_at = None
    assert stages.run(spec, TEACHER, host).step == 7
    labels = [f"{kind}-{n}" for kind in ("shortcut", "ctm") for n in (4, 2, 1)]
    assert [args[3] for args in calls] == [*labels, "dmd2-1"]
    stock = load_teacher(TEACHER).unet.state_dict()
    for unet, sampler, *_ in calls:
        assert {name: w.shape for name, w in unet.state_dict().items()} == {name: w.shape for name, w in stock.items()}
        assert not isinstance(unet.class_embedding, LabelAndTarget)
        assert sampler.kind == ("ddim" if unet is not calls[-1][0] else "renoise")
    assert (3, 0, "student", 4) in host.samples, "the preview shows the student of four steps"
