"""Half precision, activation checkpointing: what changes is rounding and memory, not what is learnt."""

import math
from pathlib import Path
from typing import Any

import pytest
import tiny_sd3
import torch
from pydantic import ValidationError
from torch import Tensor

from service.methods import METHODS
from service.spec import Compute, JobSpec
from workers import stages
from workers.compute import hasten
from workers.data.source import Batch, ImageSource
from workers.diffusion.guidance import guided
from workers.families.sd3 import SD3
from workers.methods.base import LossOut
from workers.methods.registry import REGISTRY
from workers.models.denoiser import Denoiser
from workers.models.unet2d import load_teacher
from workers.precision import FIRST_SCALE, SKIPS_IN_A_ROW, exact
from workers.randomness import BatchRng
from workers.state import State, read
from workers.trainer import Cadence, Diverged, Trainer

TEACHER = Path(stages.__file__).parent / "assets" / "digits" / "teacher"
DMD2 = {"kind": "dmd2", "steps": 1, "gan_weight": 0.1, "batch_size": 4}


@pytest.fixture(scope="module")
def unet() -> Denoiser:
    return load_teacher(TEACHER)


@pytest.fixture(scope="module")
def sd3() -> Denoiser:
    return SD3.of(tiny_sd3.sd3(), ["a cat", "two dogs"]).eval().requires_grad_(False)


def images_of(teacher: Denoiser) -> ImageSource:
    rng = torch.Generator().manual_seed(1)
    return ImageSource(torch.randn(16, *teacher.shape, generator=rng), torch.arange(16) % 2)


def gradients(teacher: Denoiser, role: str, compute: Compute, **method: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one turn, and all gradients of the role."""
    settings = METHODS[method.get("kind", "dmd2")](**(DMD2 | method))
    torch.manual_seed(0)
    built = REGISTRY[settings.kind](settings, guided(teacher.frozen_copy(), 2.0), teacher)
    hasten([built.teacher, *built.trainable.values(), *built.followers.values()], compute)
    for name, module in built.trainable.items():
        module.requires_grad_(name == role)
    rng = BatchRng(0, batch_size=4)
    loss = built.loss(role, images_of(teacher).batch(rng), 0, rng).loss
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in built.trainable[role].named_parameters() if p.grad is not None}


@pytest.mark.parametrize("role", ["student", "fake"])
@pytest.mark.parametrize("name", ["unet", "sd3"])
def test_blocks_computed_again_give_the_same_losses_and_gradients(
    name: str, role: str, request: pytest.FixtureRequest
) -> None:
    teacher = request.getfixturevalue(name)
    loss, plain = gradients(teacher, role, Compute())
    again, other = gradients(teacher, role, Compute(activation_checkpointing=True))
    torch.testing.assert_close(again, loss, rtol=0, atol=1e-6)
    assert plain.keys() == other.keys()
    for key in plain:
        torch.testing.assert_close(other[key], plain[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["unet", "sd3"])
def test_less_is_kept_for_the_backward_pass_when_blocks_are_computed_again(
    name: str, request: pytest.FixtureRequest
) -> None:
    def kept(compute: Compute) -> int:
        network = request.getfixturevalue(name).trainable_copy()
        hasten([network], compute)
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        x, t = torch.randn(8, *network.shape), torch.full((8,), 0.5, dtype=torch.float64)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network.predict(x, t, torch.zeros(8, dtype=torch.long))
        weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        return sum(size for pointer, size in storages.items() if pointer not in weights)

    assert kept(Compute(activation_checkpointing=True)) < 0.5 * kept(Compute())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["unet", "sd3"])
def test_in_half_precision_answers_are_float32_and_a_little_off(
    name: str, precision: Any, request: pytest.FixtureRequest
) -> None:
    network = request.getfixturevalue(name).frozen_copy()
    x, t, labels = torch.randn(4, *network.shape), torch.full((4,), 0.5, dtype=torch.float64), torch.arange(4) % 2
    plain, features = network.predict(x, t, labels), network.features(x, t, labels)
    hasten([network], Compute(precision=precision))
    rounded = network.predict(x, t, labels)
    assert rounded.dtype is torch.float32
    assert all(feature.dtype is torch.float32 for feature in network.features(x, t, labels))
    assert len(network.features(x, t, labels)) == len(features)
    off = (rounded - plain).abs().max() / plain.abs().max()
    assert 0 < off < 0.05
    with exact():
        assert torch.equal(network.predict(x, t, labels), plain)


def test_half_precision_learns_the_same(unet: Denoiser) -> None:
    loss, plain = gradients(unet, "student", Compute())
    rounded, other = gradients(unet, "student", Compute(precision="bf16"))
    assert rounded == pytest.approx(float(loss), rel=0.1)
    a, b = (torch.cat([g.flatten() for g in found.values()]) for found in (plain, other))
    assert b.dtype is torch.float32
    assert torch.cosine_similarity(a, b, dim=0) > 0.95


@pytest.mark.parametrize("difference_step", [None, 0.2])
def test_derivatives_in_time_are_taken_in_full_precision(
    unet: Denoiser, difference_step: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    honest = type(unet).raw

    def watched(self: Any, x: Tensor, *rest: Any) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return honest(self, x, *rest)

    monkeypatch.setattr(type(unet), "raw", watched)
    changes: dict[str, Any] = {"kind": "scm", "difference_step": difference_step, "iterations": 10}
    settings = METHODS["scm"](batch_size=4, **changes)
    built = REGISTRY["scm"](settings, unet.frozen_copy(), unet)
    hasten([built.teacher, built.student], Compute(precision="bf16"))
    rng = BatchRng(0, batch_size=4)
    built.loss("student", images_of(unet).batch(rng), 0, rng).loss.backward()
    student, teacher, *derivative = seen
    assert student
    assert teacher
    assert derivative
    assert not any(derivative)


def fp16(unet: Denoiser, host: Any, state: State, scale: float | None = None) -> Trainer:
    settings = METHODS["consistency"](iterations=30, batch_size=2)
    built = REGISTRY["consistency"](settings, unet, unet)
    cadence, compute = Cadence(2, 1000), Compute(precision="fp16")
    hasten([built.student], compute)
    trainer = Trainer(built, images_of(unet), host, state, cadence, 0, None, compute)
    if scale is not None:
        trainer.scales["student"].scale.fill_(scale)
    return trainer


def test_a_step_that_overflows_is_skipped_and_halves_the_scale(unet: Denoiser, local_host: Any, tmp_path: Path) -> None:
    host = local_host(tmp_path)
    host.stop_at = 4
    run = fp16(unet, host, State(), scale=2.0**127)  # the loss is about 1, its gradients beyond float32
    before = [parameter.clone() for parameter in run.method.student.parameters()]
    first = host.metrics

    def checked(step: int, stage: int, values: dict[str, float]) -> None:
        first(step, stage, values)
        if step == 1:
            assert all(torch.equal(a, b) for a, b in zip(before, run.method.student.parameters(), strict=True))

    host.metrics = checked
    run.run()
    assert "grad_norm" not in host.steps[1]
    assert all(math.isfinite(value) for values in host.steps.values() for value in values.values())
    scale = run.scales["student"]
    assert float(scale.scale) < 2.0**127

    with host.latest_checkpoint() as checkpoint:
        resumed = fp16(unet, local_host(), read(checkpoint))
    for name in ("scale", "good", "skipped"):
        assert torch.equal(getattr(resumed.scales["student"], name), getattr(scale, name))


def test_a_good_step_is_the_step_without_a_scale(unet: Denoiser, local_host: Any) -> None:
    norms = []
    for scale in (FIRST_SCALE, 1.0):
        host = local_host()
        host.stop_at = 1
        fp16(unet, host, State(), scale).run()
        norms.append(host.steps[1]["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=0.02)


def test_twenty_skipped_steps_in_a_row_are_divergence(unet: Denoiser, local_host: Any) -> None:
    host = local_host()
    run = fp16(unet, host, State())
    honest = run.method.loss

    def broken(role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        out = honest(role, batch, segment, rng)
        return LossOut(out.loss * math.inf)

    run.method.loss = broken  # type: ignore[method-assign]
    with pytest.raises(Diverged, match=f"step {SKIPS_IN_A_ROW}: the loss of the student is not finite"):
        run.run()


def spec(method: dict[str, Any], **compute: Any) -> JobSpec:
    return JobSpec.model_validate({"teacher": "digits", "method": method, "compute": compute})


@pytest.mark.parametrize(
    ("method", "compute", "sentence"),
    [
        ({"kind": "scm", "difference_step": None}, {"strategy": "fsdp"}, "fsdp has no derivatives in forward mode"),
        (
            {"kind": "meanflow", "difference_step": None},
            {"activation_checkpointing": True},
            "activation_checkpointing has no derivatives in forward mode: give a number as difference_step",
        ),
        (
            {"kind": "ladd", "r1": "exact", "r1_weight": 0.1},
            {"strategy": "fsdp"},
            "no second derivatives: use r1 approximate",
        ),
    ],
)
def test_what_takes_more_than_gradients_is_refused_at_submission(
    method: dict[str, Any], compute: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError, match=sentence):
        spec(method, **compute)
    assert spec(method).compute == Compute()
    assert spec({"kind": method["kind"]}, **compute).compute == Compute(**compute)
