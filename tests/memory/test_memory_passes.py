"""How much each method says that it holds at once, against what its losses hold on the digits' network."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from peak import Peak
from torch import nn

from service.methods import METHODS
from service.methods.base import PairSettings
from service.methods.templates import AdversarialScoreSettings, TangentSettings
from workers import stages
from workers.data.source import ImageSource
from workers.models.denoiser import Denoiser
from workers.models.unet2d import load_teacher
from workers.randomness import BatchRng
from workers.store import local_folder

BATCH = 16
WITHIN = 0.2
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in METHODS),
    *((kind, {"gan_weight": 0.01}) for kind, one in METHODS.items() if issubclass(one, AdversarialScoreSettings)),
    *((kind, {"difference_step": None}) for kind, one in METHODS.items() if issubclass(one, TangentSettings)),
]


@pytest.fixture(scope="module")
def teacher() -> Denoiser:
    return load_teacher(local_folder("builtin:digits"))


def held(run: Callable[[], object], modules: Sequence[nn.Module], gradients: bool = True) -> int:
    """Bytes at most, beside `modules`."""
    with torch.set_grad_enabled(gradients), Peak(modules) as peak:
        before = peak.now
        result = run()
        del result
    return peak.highest - before


def once(network: Denoiser, x: torch.Tensor, gradients: bool = True) -> int:
    """Bytes of a pass of a batch, at most."""
    t, labels = torch.full((BATCH,), 0.5, dtype=torch.float64), torch.zeros(BATCH, dtype=torch.long)
    return held(lambda: network.predict(x, t, labels), [network], gradients)


@pytest.mark.parametrize(("kind", "changes"), VARIANTS, ids=[" ".join((kind, *more)) for kind, more in VARIANTS])
def test_a_method_holds_as_much_as_it_says(teacher: Denoiser, kind: str, changes: dict[str, Any]) -> None:
    pairs = {"pairs": BATCH} if issubclass(METHODS[kind], PairSettings) else {}
    settings = METHODS[kind](batch_size=BATCH, **pairs, **changes)
    method = stages.build(settings, teacher)
    images = torch.randn(BATCH, *teacher.shape)
    source = ImageSource(images, torch.arange(BATCH) % 10, torch.randn_like(images))
    most = 0
    for role in method.trainable:
        for name, module in method.trainable.items():
            module.requires_grad_(name == role)
        for segment in {0, len(method.segments()) - 1}:
            rng = BatchRng(0, 0, 0, 0, batch_size=BATCH)
            batch = None if method.data_need == "none" else source.batch(rng)
            modules = [teacher, *method.trainable.values(), *method.followers.values()]
            most = max(most, held(lambda r=role, b=batch, s=segment, g=rng: method.loss(r, b, s, g), modules))
    said, plain = settings.passes(), torch.randn(BATCH, *teacher.shape)
    trained = once(teacher.trainable_copy(), plain)
    through = once(teacher.frozen_copy(), plain.clone().requires_grad_(True))
    idle = once(teacher, plain, gradients=False)
    expected = said.trained * trained + said.through * through + said.idle * idle
    assert most == pytest.approx(expected, rel=WITHIN)
