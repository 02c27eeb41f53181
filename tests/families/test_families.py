"""Whether an adapter asks its network what the family's own pipeline asks it."""

from typing import Any

import pytest
import torch
from diffusers.utils import recurse_remove_peft_layers
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from tiny import Tiny
from tiny_all import TINY
from torch import Tensor

from workers.diffusion.guidance import guided
from workers.diffusion.paths import VPCosine
from workers.diffusion.solver import solve
from workers.models import backbone
from workers.models.backbone import Backbone
from workers.models.denoiser import Denoiser, networks
from workers.models.stock import scheduler_times

PROMPTS = ["a cat", "two dogs by the sea"]
STEPS = 4
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=TINY)
def tiny(request: pytest.FixtureRequest) -> Tiny:
    return TINY[request.param]


@pytest.fixture(scope="module")
def opened(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A pipeline that was saved and opened again, and the family's denoiser of it."""
    folder = tmp_path_factory.mktemp("pipeline")
    tiny.make().save_pretrained(folder, safe_serialization=True)
    pipe = tiny.family.pipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    denoiser = tiny.family.of(pipe, PROMPTS)
    return pipe, denoiser.eval().requires_grad_(False)


def queries(denoiser: Denoiser, n: int = 2, wide: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    channels, height, width = denoiser.shape
    x = torch.randn(n, channels, height, 3 * width // 2 if wide else width, generator=rng)
    return x, torch.linspace(0.3, 0.9, n, dtype=torch.float64) * denoiser.path.t_max, torch.arange(n)


@torch.no_grad()
def ends(tiny: Tiny, pipe: Any, denoiser: Denoiser, guidance: float, wide: bool = False) -> tuple[Tensor, Tensor]:
    """Latents after a few steps of the pipeline's own, and of ours from the same noise on the same times."""
    noise = queries(denoiser, wide=wide)[0]
    theirs = tiny.run(pipe, PROMPTS, noise, STEPS, guidance)
    network, labels = guided(denoiser, guidance), torch.arange(len(PROMPTS))
    times = scheduler_times(pipe.scheduler, denoiser.path)
    assert len(times) == STEPS + 1
    ours = solve(lambda x, t: network.predict(x, t, labels), noise, times, denoiser.path)
    return ours, theirs


def test_our_steps_are_the_pipelines(tiny: Tiny, opened: tuple[Any, Any]) -> None:
    for guidance in tiny.guidances:
        ours, theirs = ends(tiny, *opened, guidance)
        assert theirs.std() > 0.1
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


def test_our_steps_are_the_pipelines_at_a_size_that_is_not_the_networks_own(
    tiny: Tiny, opened: tuple[Any, Any]
) -> None:
    denoiser = opened[1]
    if denoiser.multiple() is None:
        return  # it has one size
    ours, theirs = ends(tiny, *opened, tiny.guidances[-1], wide=True)
    assert theirs.shape[-1] == 3 * theirs.shape[-2] // 2
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)
    x, t, labels = queries(denoiser, wide=True)
    assert all(h.shape[-1] == 3 * h.shape[-2] // 2 for h in denoiser.features(x, t, labels))


def test_many_prompts_are_encoded_as_few_are(tiny: Tiny, opened: tuple[Any, Any], monkeypatch: Any) -> None:
    pipe, denoiser = opened
    if not isinstance(denoiser, Backbone) or denoiser.conditions is None:
        return  # its labels are classes
    monkeypatch.setattr(backbone, "ENCODED_AT_ONCE", 1)
    one_by_one = tiny.family.encoded(pipe, PROMPTS)
    assert one_by_one.prompts == len(PROMPTS)
    for name in one_by_one.names:
        torch.testing.assert_close(one_by_one.get_buffer(name), denoiser.conditions.get_buffer(name))


def test_prompts_make_a_difference(opened: tuple[Any, Any]) -> None:
    _, denoiser = opened
    x, t, _ = queries(denoiser, 3)
    x, t = x[:1].expand_as(x), t[:1].expand_as(t)
    one, other, null = denoiser.predict(x, t, torch.tensor([0, 1, denoiser.null_label]))
    assert (one - other).abs().max() > TOLERANCE < (one - null).abs().max()


def test_a_query_at_equal_snr_is_the_direct_one(opened: tuple[Any, Any]) -> None:
    _, denoiser = opened
    x, t, labels = queries(denoiser)
    other = VPCosine()
    t_there = other.t_of_angle(denoiser.path.angle(t))
    norm = torch.hypot(denoiser.path.alpha(t), denoiser.path.sigma(t)).reshape(-1, 1, 1, 1).float()
    there = denoiser.predict(x / norm, t_there, labels, path=other)
    torch.testing.assert_close(there, denoiser.predict(x, t, labels), atol=TOLERANCE, rtol=TOLERANCE)


def test_the_gradient_reaches_the_input(opened: tuple[Any, Any]) -> None:
    _, denoiser = opened
    x, t, labels = queries(denoiser)
    x.requires_grad_(True)
    denoiser.predict(x, t, labels).square().mean().backward()
    assert x.grad is not None
    assert (x.grad.abs().flatten(1).sum(1) > 0).all()


def test_a_batch_of_no_rows_is_answered_and_has_a_gradient(opened: tuple[Any, Any]) -> None:
    _, denoiser = opened
    x, t, labels = queries(denoiser)
    student = denoiser.trainable_copy()
    answer = student.predict(x[:0], t[:0], labels[:0])
    assert answer.shape == (0, *denoiser.shape)
    answer.sum().backward()
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert gradients
    assert all(not gradient.any() for gradient in gradients), "zeros, and so no NaN"


def test_features_have_the_declared_channels_and_depend_on_the_image(opened: tuple[Any, Any]) -> None:
    _, denoiser = opened
    x, t, labels = queries(denoiser)
    x.requires_grad_(True)
    found = denoiser.features(x, t, labels)
    assert tuple(h.shape[1] for h in found) == denoiser.feature_channels
    assert all(h.ndim == 4 and len(h) == len(x) for h in found)
    found[-1].mean().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_copies_have_weights_of_their_own_and_share_the_prompts(opened: tuple[Any, Any]) -> None:
    _, denoiser = opened
    x, t, labels = queries(denoiser)
    before = denoiser.predict(x, t, labels)
    student = denoiser.trainable_copy()
    assert getattr(student, "conditions", None) is getattr(denoiser, "conditions", None)
    assert student.state_dict().keys() == denoiser.state_dict().keys()
    torch.testing.assert_close(student.predict(x, t, labels), before)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.01)
    torch.testing.assert_close(denoiser.predict(x, t, labels), before)
    assert not torch.allclose(student.predict(x, t, labels), before)


def test_a_lora_can_be_put_on_and_merged(opened: tuple[Any, Any]) -> None:
    _, denoiser = opened
    x, t, labels = queries(denoiser)
    student = denoiser.frozen_copy()
    network: Any = next(networks(student))
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=2, target_modules=list(denoiser.lora_targets)), network)
    torch.testing.assert_close(student.predict(x, t, labels), denoiser.predict(x, t, labels))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
    tuned = student.predict(x, t, labels)
    assert (tuned - denoiser.predict(x, t, labels)).abs().max() > TOLERANCE
    for layer in network.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
    recurse_remove_peft_layers(network)
    torch.testing.assert_close(student.predict(x, t, labels), tuned, atol=1e-5, rtol=1e-4)
    assert student.state_dict().keys() == denoiser.state_dict().keys()


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, i) for kind, tiny in TINY.items() for i in range(len(tiny.faults))]
)
def test_a_planted_fault_is_found(kind: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = TINY[kind]
    pipe = tiny.make()
    pipe.set_progress_bar_config(disable=True)
    denoiser = tiny.family.of(pipe, PROMPTS).eval().requires_grad_(False)
    tiny.faults[number].plant(denoiser, monkeypatch)
    ours, theirs = ends(tiny, pipe, denoiser, tiny.guidances[-1], wide=denoiser.multiple() is not None)
    assert ours.isfinite().all()
    assert not torch.allclose(ours, theirs, atol=10 * TOLERANCE)
