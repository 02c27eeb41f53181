"""One interface over every backbone: what a method asks a network, whatever it predicts and on whatever path."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from workers.diffusion.convert import Prediction, convert, form, recombine
from workers.diffusion.paths import Path, expand
from workers.models.low_rank import copied, named_layers, with_low_rank
from workers.precision import rounded


class Denoiser(nn.Module, ABC):
    """A network with its native path and prediction type.

    Attributes:
        path: the path that the network was trained on.
        prediction: what `raw` gives.
        shape: of one image, [C, H, W] (or any other).
        num_classes: classes that may be asked for, labels 0 .. num_classes - 1; None for an unconditional network.
        null_label: the label that stands for "no class", None where the network knows none.
        knows_target: whether the network is also told the time s that the step from t leads to.
        feature_channels: of each of the `features`; none where there are no features.
        lora_targets: the layers that get low-rank updates unless others are named, by the ends of their names.
        precision: in which the network is run; None is that of its weights. Answers are in the precision of x.
        embedded_guidance: the guidance scale that a network which was distilled from a guided one is told; else None.
        runs_to_the_end: whether the network is run to its end also for `features`, which need its first half.
    """

    lora_targets: ClassVar[tuple[str, ...]] = ()

    path: Path
    prediction: Prediction
    shape: tuple[int, ...]
    num_classes: int | None = None
    null_label: int | None = None
    knows_target: bool = False
    feature_channels: tuple[int, ...] = ()
    precision: torch.dtype | None = None
    embedded_guidance: float | None = None
    runs_to_the_end: bool = False

    def multiple(self) -> int | None:
        """What the sides of x are multiples of, where the network takes other sizes than its own; else None."""
        return None

    @abstractmethod
    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        """The network's own output at x [B, ...] and times t [B] of its own path; `s` [B] where it `knows_target`."""

    def predict(
        self,
        x: Tensor,
        t: Tensor,
        labels: Tensor | None,
        want: Prediction = "x0",
        path: Path | None = None,
        s: Tensor | None = None,
    ) -> Tensor:
        """The prediction `want` at x [B, ...], t [B] of `path` (by default the network's own).

        On another path the network is asked at equal SNR: x/sqrt(alpha^2 + sigma^2) is the same on both.
        """
        if path is None or path is self.path:
            return convert(x, t, self._asked(x, t, labels, s), self.prediction, want, self.path)
        own_t = self.path.t_of_angle(path.angle(t))
        own_s = None if s is None else self.path.t_of_angle(path.angle(s))
        norm = torch.hypot(path.alpha(t), path.sigma(t))
        own_norm = torch.hypot(self.path.alpha(own_t), self.path.sigma(own_t))
        own_x = x * expand(own_norm / norm, x)
        out = self._asked(own_x, own_t, labels, own_s)  # a form of the same x0 and eps, so there is no detour over x0
        return recombine(x, t, out, form(self.prediction, own_t, self.path), form(want, t, path), path)

    def _asked(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None) -> Tensor:
        if not len(x):  # all workers of a split network must ask equally often, and attention takes no batch of no rows
            first, last = x.new_zeros(1, *x.shape[1:]), t.new_full((1,), self.path.t_max)
            known = None if labels is None else labels.new_zeros(1)
            return self._asked(first, last, known, None if s is None else last)[:0]
        with rounded(self.precision, x.device):
            return self.raw(x, t, labels, s).to(x.dtype)

    def features(self, x: Tensor, t: Tensor, labels: Tensor | None) -> list[Tensor]:
        """What a critic may look at: for each block of the first half of the network its output [B, channels, ...]."""
        with rounded(self.precision, x.device):
            return [feature.to(x.dtype) for feature in self.raw_features(x, t, labels)]

    def raw_features(self, x: Tensor, t: Tensor, labels: Tensor | None) -> list[Tensor]:
        """The `features` as the network gives them."""
        raise NotImplementedError(f"{type(self).__name__} has no features")

    def trainable_copy(self) -> "Denoiser":
        """The same network with weights of its own that require gradients. Dropout stays off: pairs must agree."""
        return copied(self).eval().requires_grad_(True)

    def with_low_rank(self, rank: int, targets: Sequence[str] | None = None) -> "Denoiser":
        """A network that shares the weights, frozen, and whose parameters are low-rank updates of them alone. So do the
        copies of it; what they are given anew, such as an input for conditions, is trained whole.

        Args:
            targets: in the place of `lora_targets`.

        Raises:
            TeacherInvalid: as `low_rank.with_low_rank`.
        """
        usual = [target for target in self.lora_targets if named_layers(self, target)]
        return with_low_rank(self, rank, targets or usual).eval()

    def smaller(self, width: float, depth: float) -> "Denoiser":
        """A network of the same kind with these shares of the channels and of the blocks at each resolution; it keeps
        what fits of the weights. TeacherInvalid where nothing can be left out."""
        raise NotImplementedError(f"{type(self).__name__} has no smaller form")

    @abstractmethod
    def with_conditions(self, copies: int) -> "Denoiser":
        """A trainable copy that tells `copies` conditions apart, all alike at first.

        It takes the label `condition * (num_classes + 1) + label`, or just `condition` if it knows no classes.
        """

    def with_target(self) -> "Denoiser":
        """A trainable copy that also takes the target time `s`, whose output does not depend on it at first."""
        raise NotImplementedError(f"{type(self).__name__} cannot be told a target time")

    def baked(self, steps: Sequence[tuple[float, float]]) -> "Denoiser":
        """A frozen copy in the format of the teacher, for one sampler: at each t of the `steps` (t, s) it gives what
        this network gives there with that s; and at every other t too, where all s are one."""
        raise NotImplementedError(f"{type(self).__name__} cannot be told a target time")

    def frozen_copy(self) -> "Denoiser":
        return copied(self).eval().requires_grad_(False)


def networks(module: nn.Module) -> Iterator[nn.Module]:
    """What the denoisers in `module` ask: their children that are no denoisers themselves."""
    for denoiser in module.modules():
        if isinstance(denoiser, Denoiser):
            yield from (child for child in denoiser.children() if not isinstance(child, Denoiser))
