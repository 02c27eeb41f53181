"""What a step costs, counted: calls of a network with a whole batch, and the backward passes through them; the mean
over a run."""

from typing import Any

import pytest
import torch
from torch import Tensor

from service.methods import METHODS
from service.methods.templates import ScoreSettings
from workers.data.source import Batch
from workers.methods.registry import REGISTRY
from workers.models.denoiser import Denoiser
from workers.models.mixture import MlpDenoiser
from workers.models.unet2d import UNetDenoiser, load_teacher
from workers.randomness import BatchRng
from workers.stages import image_source
from workers.store import local_folder

STEPS = 12
SIZE = 32


class Counter:
    """Of forwards and backwards through networks, in whole batches; features are half a network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forwards = self.backwards = 0.0
        self._within = False  # features are read off a run of the network that is not a call of its own
        for network in (MlpDenoiser, UNetDenoiser):
            for name, share in (("raw", 1.0), ("features", 0.5)):
                monkeypatch.setattr(network, name, self._counted(getattr(network, name), share))

    def _counted(self, call: Any, share: float) -> Any:
        def counted(network: Denoiser, x: Tensor, *rest: Any, **named: Any) -> Tensor | list[Tensor]:
            if self._within:
                return call(network, x, *rest, **named)  # type: ignore[no-any-return]
            part = share * len(x) / SIZE
            with_tangent = torch._C._functorch.is_functorch_wrapped_tensor(x)
            self.forwards += part * (2 if with_tangent else 1)
            self._within = share < 1
            try:
                output: Tensor | list[Tensor] = call(network, x, *rest, **named)
            finally:
                self._within = False
            last = output if isinstance(output, Tensor) else output[-1]
            if not with_tangent and last.requires_grad:
                last.register_hook(lambda grad: self._backward(part))
            return output

        return counted

    def _backward(self, part: float) -> None:
        self.backwards += part


SCORES = [kind for kind, settings in METHODS.items() if issubclass(settings, ScoreSettings)]
SET = [
    *((kind, {}) for kind in REGISTRY),
    *((kind, {"fake_updates": 1}) for kind in SCORES),
    *(
        ("dmd2", more)
        for more in ({"steps": 4}, {"gan_weight": 0.1}, {"gan_weight": 0.1, "fake_updates": 2, "r1_weight": 1.0})
    ),
    ("moment_matching", {"steps": 2}),
    ("sida", {"fake_updates": 1, "r1_weight": 1.0}),
]


@pytest.mark.parametrize(
    ("kind", "changed"), [pytest.param(*one, id=" ".join(map(str, (one[0], *one[1].items())))) for one in SET]
)
def test_the_documented_cost_is_the_counted_one(
    kind: str, changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    settings = METHODS[kind](batch_size=SIZE, **changed)
    with_classes = settings.needs_classes or settings.guidance_scale != 1
    teacher: Denoiser = load_teacher(local_folder("builtin:digits")) if with_classes else MlpDenoiser()
    images = image_source(teacher) if with_classes else None
    method = REGISTRY[kind](settings, teacher, teacher)
    counter = Counter(monkeypatch)
    forwards = backwards = 0.0
    for segment, length in enumerate(method.segments()):
        counter.forwards = counter.backwards = 0.0
        for step in range(STEPS):
            for turn, role in enumerate(method.turns(step)):
                for name, module in method.trainable.items():
                    module.requires_grad_(name == role)
                rng = BatchRng(0, 0, step, turn, batch_size=SIZE)
                x, noise = rng.normal((2, 2)).unbind(1)
                batch = Batch(x, None, noise) if images is None else images.batch(rng)
                method.loss(role, None if settings.data() == "none" else batch, segment, rng).loss.backward()
            method.after_step()
        share = length / settings.total_steps()
        forwards += share * counter.forwards / STEPS
        backwards += share * counter.backwards / STEPS
        method.next_segment()
    print(f"{kind}: {forwards:.2f} forwards, {backwards:.2f} backwards")
    assert settings.cost() == pytest.approx((forwards, backwards), abs=0.25)
