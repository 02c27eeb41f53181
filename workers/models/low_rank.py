"""Low-rank updates of frozen weights (LoRA, arXiv:2106.09685): few numbers to train, and none more to export."""

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

M = TypeVar("M", bound=nn.Module)


class LowRank(nn.Module):
    """W + B A, with as many rows of A and columns of B as the rank; B is 0 at first."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        self.a = nn.Parameter(torch.randn(rank, columns).to(weight) / math.sqrt(columns))
        self.b = nn.Parameter(weight.new_zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).reshape(weight.shape)


def with_low_rank(network: M, rank: int) -> M:
    """Give every linear and convolutional layer a low-rank update, and make buffers of all that was a parameter.

    Changes `network` and returns it: its parameters are those of the updates alone.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for module in list(network.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
    return network


def merged(network: M) -> M:
    """A copy with the updates added to the weights, named as before there were any; `network` itself if it has none."""
    if not any(isinstance(module, LowRank) for module in network.modules()):
        return network
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            # remove_parametrizations would undo the class, which the copy shares with `network`
            weight = module.weight
            assert isinstance(weight, Tensor)
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            module.register_buffer("weight", weight.detach())
    return network
