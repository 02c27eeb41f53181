"""Averaged weights."""

import torch
from torch import nn


@torch.no_grad()
def ema_update(average: nn.Module, live: nn.Module, decay: float) -> None:
    """average <- decay average + (1 - decay) live, over parameters; both modules have the same architecture."""
    torch._foreach_lerp_(list(average.parameters()), list(live.parameters()), 1 - decay)


@torch.no_grad()
def copy_weights(target: nn.Module, source: nn.Module) -> None:
    """target <- source, over parameters."""
    torch._foreach_copy_(list(target.parameters()), list(source.parameters()))
