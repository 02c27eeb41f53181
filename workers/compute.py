"""How networks are run: precision, layout of the memory, what is kept for the backward pass, compilation."""

from collections.abc import Iterable

import torch
from diffusers import ModelMixin
from torch import nn

from service.spec import Compute
from workers.models.denoiser import Denoiser, networks
from workers.precision import PRECISIONS


def hasten(modules: Iterable[nn.Module], compute: Compute) -> None:
    """Prepare every network in `modules`, in place: neither the weights' values nor their names change.

    What asks for derivatives in forward mode is not compiled by torch, which then runs the network as it is.
    """
    for module in modules:
        lay_out(module, compute)
        for denoiser in module.modules():
            if isinstance(denoiser, Denoiser):
                denoiser.precision = PRECISIONS[compute.precision]
                denoiser.runs_to_the_end |= compute.activation_checkpointing
        for network in networks(module):
            if compute.activation_checkpointing and isinstance(network, ModelMixin):
                network.enable_gradient_checkpointing()
            if compute.compile:
                network.compile()


def lay_out(module: nn.Module, compute: Compute) -> None:
    """The part of it that moves weights: networks that share them have to be made of one that was laid out before."""
    if compute.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
