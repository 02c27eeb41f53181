"""How networks are run: the layout of their memory, and compilation."""

from collections.abc import Iterable

import torch
from torch import nn

from service.spec import Compute
from workers.models.denoiser import Denoiser


def hasten(modules: Iterable[nn.Module], compute: Compute) -> None:
    """Prepare every network in `modules`, in place: neither the weights' values nor their names change.

    What asks for derivatives in forward mode is not compiled by torch, which then runs the network as it is.
    """
    for module in modules:
        lay_out(module, compute)
        if compute.compile:
            for network in _networks(module):
                network.compile()


def lay_out(module: nn.Module, compute: Compute) -> None:
    """The part of it that moves weights: networks that share them have to be made of one that was laid out before."""
    if compute.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _networks(module: nn.Module) -> Iterable[nn.Module]:
    """What the denoisers in `module` ask: their children that are no denoisers themselves."""
    for denoiser in module.modules():
        if isinstance(denoiser, Denoiser):
            yield from (child for child in denoiser.children() if not isinstance(child, Denoiser))
