"""Few-step students of every family: our sampler against the family's pipeline with the scheduler that we export."""

from typing import Any

import diffusers
import pytest
import torch
from diffusers.schedulers import scheduling_flow_match_lcm
from tiny import Tiny
from tiny_all import TINY
from torch import Tensor

from workers.diffusion.sampler import FLOW_SCHEDULERS, GAMMA, SamplerKind, SamplerSpec, sample
from workers.families.edm import EDM
from workers.models.denoiser import Denoiser
from workers.models.flow_backbone import FlowBackbone

VP_KINDS: tuple[SamplerKind, ...] = ("ddim", "ancestral", "renoise", "gamma")
DRAWS_ITS_OWN = ("dit",)
"""Its pipeline takes no noise, so the test's own is put in the place of any that is drawn."""


def kinds(tiny: Tiny) -> tuple[SamplerKind, ...]:
    if tiny.family is EDM:
        return ("ddim",)
    return tuple(FLOW_SCHEDULERS) if issubclass(tiny.family, FlowBackbone) else VP_KINDS


PAIRS = [(name, kind) for name, tiny in TINY.items() for kind in kinds(tiny)]


class WithEta:
    """A pipeline that is told TCD's eta, which pipelines set to 0 where they are not."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._pipe(*args, eta=GAMMA, **named)


def draw_unpacked(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    """FLUX's scheduler sees packed latents and draws noise of their shape: here it draws images, and packs them."""

    def packed(*_: Any, **__: Any) -> Tensor:
        noise: Tensor = diffusers.FluxPipeline._pack_latents(torch.randn(1, *shape), 1, *shape)
        return noise

    monkeypatch.setattr(scheduling_flow_match_lcm, "randn_tensor", packed)


@pytest.fixture(scope="module")
def opened() -> dict[str, tuple[Any, Denoiser]]:
    return {}


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize(("name", "kind"), [p for p in PAIRS if p[1] == "ddim" or p[0] not in DRAWS_ITS_OWN])
def test_the_pipeline_with_the_exported_scheduler_is_our_sampler(
    opened: dict[str, tuple[Any, Denoiser]], name: str, kind: SamplerKind, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = TINY[name]
    if name not in opened:
        pipe = tiny.make()
        pipe.set_progress_bar_config(disable=True)
        opened[name] = pipe, tiny.family.of(pipe, ["a cat"]).eval().requires_grad_(False)
    pipe, denoiser = opened[name]
    spec = SamplerSpec.on(denoiser.path, kind, [steps])
    scheduler, config = spec.scheduler_config(dict(tiny.make().scheduler.config))
    pipe.scheduler = getattr(diffusers, scheduler).from_config(config)

    torch.manual_seed(0)
    ours = sample(denoiser, spec, steps, torch.tensor([0]), [torch.default_generator])
    torch.manual_seed(0)
    noise = torch.randn(1, *denoiser.shape)
    if name.startswith("flux"):
        draw_unpacked(monkeypatch, denoiser.shape)
    theirs = tiny.run(WithEta(pipe) if kind == "gamma" else pipe, ["a cat"], noise, steps, 1.0)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("kind", "steps"), [("renoise", 2), ("ancestral", 1), ("gamma", 1)])
def test_what_has_no_scheduler_under_edms_preconditioning(kind: SamplerKind, steps: int) -> None:
    path = TINY["edm"].family.of(TINY["edm"].make()).path
    assert SamplerSpec.on(path, "renoise", [1, 2, 4]).steps == (1,)
    with pytest.raises(ValueError, match=f"takes {kind} steps under EDM's preconditioning"):
        SamplerSpec.on(path, kind, [steps])


def test_kinds_without_a_stock_scheduler_are_refused() -> None:
    denoiser = TINY["sd3"].family.of(TINY["sd3"].make(), ["a cat"])
    with pytest.raises(ValueError, match="gamma"):
        SamplerSpec.on(denoiser.path, "gamma", [4])
