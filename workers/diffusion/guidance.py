"""Classifier-free guidance as a denoiser around a denoiser, so that every method distils guided teachers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.diffusion.convert import Prediction
from workers.diffusion.paths import expand
from workers.models.denoiser import Denoiser


def guided_prediction(
    network: Denoiser, x: Tensor, t: Tensor, labels: Tensor, scale: Tensor, want: Prediction = "x0"
) -> Tensor:
    """u + g (c - u), where g is `scale`, one number or one for each image [B]."""
    null = torch.full_like(labels, network.null_label or 0)
    both = network.predict(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, null]), want)
    c, u = both.chunk(2)
    return u + expand(scale, u) * (c - u)


class Guided(Denoiser):
    """u + g (c - u) with c at the label and u at the null label, both in one forward pass (arXiv:2207.12598).

    g = 1 is off. LCM's w is g - 1.
    """

    def __init__(self, inner: Denoiser, guidance_scale: float) -> None:
        super().__init__()
        if inner.null_label is None:
            raise ValueError(
                f"guidance_scale is {guidance_scale}, but this teacher has no null class to guide away from: use 1"
            )
        self.inner, self.guidance_scale = inner, guidance_scale
        self.path, self.prediction, self.shape = inner.path, inner.prediction, inner.shape
        self.num_classes, self.null_label = inner.num_classes, inner.null_label
        self.feature_channels = inner.feature_channels

    def trainable_copy(self) -> Denoiser:
        """Of the network inside: a student needs no guidance, it learns the guided result."""
        return self.inner.trainable_copy()

    def with_low_rank(self, rank: int, targets: Sequence[str] | None = None) -> Denoiser:
        return self.inner.with_low_rank(rank, targets)

    def with_conditions(self, copies: int) -> Denoiser:
        return self.inner.with_conditions(copies)

    def with_target(self) -> Denoiser:
        return self.inner.with_target()

    def raw_features(self, x: Tensor, t: Tensor, labels: Tensor | None) -> list[Tensor]:
        """Of the network inside: features are not guided."""
        return self.inner.features(x, t, labels)

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        assert labels is not None
        return guided_prediction(self.inner, x, t, labels, torch.tensor(self.guidance_scale), want=self.prediction)


def guided(denoiser: Denoiser, guidance_scale: float) -> Denoiser:
    """`denoiser` itself where guidance is off."""
    return denoiser if guidance_scale == 1 else Guided(denoiser, guidance_scale)


def unguided(denoiser: Denoiser) -> Denoiser:
    """The network inside, or `denoiser` itself where guidance is off."""
    return denoiser.inner if isinstance(denoiser, Guided) else denoiser
