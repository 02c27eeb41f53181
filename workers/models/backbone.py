"""A denoiser around the network of a diffusers pipeline. A family's file says how its pipeline calls that network."""

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from workers.diffusion.convert import Prediction
from workers.diffusion.paths import Path
from workers.models.conditions import Conditions
from workers.models.denoiser import Denoiser
from workers.models.taps import outputs

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ENCODED_AT_ONCE = 16
"""Prompts; text encoders are large."""


class Backbone(Denoiser):
    """The network of a pipeline of one family. Labels are prompts (see `Conditions`), or the pipeline's own classes.

    Attributes:
        pipeline: the class that opens the family's folders.
        part: the pipeline's name of the network.
        optional: parts that a folder may leave out, though the pipeline asks for them.
        unused: by name, models that neither train nor make images, but look at them afterwards. They are not opened;
            a student's folder has them as its teacher's does.
        plain_arguments: with which the pipeline runs a network that needs no guidance.
        network: diffusers' model.
        conditions: what the labels stand for; None where the network takes the labels themselves.
    """

    pipeline: "ClassVar[type[DiffusionPipeline]]"
    part: ClassVar[str] = "transformer"
    optional: ClassVar[tuple[str, ...]] = ()
    unused: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    plain_arguments: ClassVar[dict[str, Any]] = {"guidance_scale": 1.0}
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    def __init__(
        self,
        network: nn.Module,
        path: Path,
        prediction: Prediction,
        shape: tuple[int, ...],
        conditions: Conditions | None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.network, self.path, self.prediction, self.shape = network, path, prediction, shape
        self.conditions = conditions
        self.num_classes = self.null_label = num_classes if conditions is None else conditions.prompts
        self.feature_channels = self.channels()

    @classmethod
    @abstractmethod
    def of(cls, pipe: Any, prompts: Sequence[str]) -> Self:
        """The denoiser of an opened pipeline, whose label i is prompts[i]."""

    @abstractmethod
    def call(self, x: Tensor, time: Tensor, rows: dict[str, Tensor]) -> Tensor:
        """The network's answer, as its pipeline asks for it. `time` [B] is on the scale of the scheduler's timesteps;
        `rows` are of the `conditions`, or the classes under "labels"."""

    @abstractmethod
    def taps(self) -> list[nn.Module]:
        """The modules, in the order they run, whose outputs are the features."""

    @abstractmethod
    def channels(self) -> tuple[int, ...]:
        """Of each of the taps."""

    @abstractmethod
    def feature(self, tap: nn.Module, output: Any, x: Tensor) -> Tensor:
        """[B, channels, h, w] of what a tap gave for x."""

    @classmethod
    def plain(cls, pipe: Any, asked: list[Any], generators: list[Any], steps: int, size: tuple[int, ...]) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] of the given size, as a user of the pipeline gets them with guidance off."""
        told = {"height": size[1], "width": size[2], "output_type": "pt", **cls.plain_arguments}
        images: Tensor = pipe(asked, num_inference_steps=steps, generator=generators, **told).images
        return images * 2 - 1

    @classmethod
    def encode(cls, pipe: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Rows of prompts, by the pipeline's own encoders."""
        raise NotImplementedError(f"{cls.__name__} takes classes, no prompts")

    @classmethod
    def null(cls, pipe: Any) -> dict[str, Tensor]:
        """The one row that guidance leads away from."""
        return cls.encode(pipe, [""])

    @classmethod
    @torch.no_grad()
    def encoded(cls, pipe: Any, prompts: Sequence[str]) -> Conditions:
        """The prompts, and the null row after them."""
        starts = range(0, len(prompts), ENCODED_AT_ONCE)
        parts = [cls.encode(pipe, prompts[start : start + ENCODED_AT_ONCE]) for start in starts] + [cls.null(pipe)]
        return Conditions({name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    def told(self, conditions: Conditions) -> Self:
        """The same network under other prompts."""
        other = copy.copy(self)
        other._modules = dict(self._modules) | {"conditions": conditions}
        other.num_classes = other.null_label = conditions.prompts
        return other

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        time = self.path.t_to_model(t).to(x.device, torch.float32, non_blocking=True)
        return self.call(x.to(dtype), time, self.rows(labels)).to(x.dtype)

    def rows(self, labels: Tensor | None) -> dict[str, Tensor]:
        """What `call` is given for labels [B], conditions left out; nothing for a network that takes none."""
        if labels is None or self.num_classes is None:
            return {}
        labels = labels % (self.num_classes + 1)
        return {"labels": labels} if self.conditions is None else self.conditions(labels)

    def raw_features(self, x: Tensor, t: Tensor, labels: Tensor | None) -> list[Tensor]:
        taps = self.taps()
        found = outputs(self.network, taps, lambda: self.raw(x, t, labels), self.runs_to_the_end)
        return [self.feature(tap, output, x) for tap, output in zip(taps, found, strict=True)]

    def with_conditions(self, copies: int) -> Denoiser:
        """A copy that is not told: a pipeline's network has no input for conditions of ours."""
        return self.trainable_copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Backbone":
        other = copy.copy(self)  # shares the path and the conditions
        other._modules = dict(self._modules) | {"network": copy.deepcopy(self.network, memo)}
        return other
