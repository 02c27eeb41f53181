"""Averaged weights."""

import torch
from torch import Tensor, nn

from workers.rows import own


@torch.no_grad()
def ema_update(average: nn.Module, live: nn.Module, decay: float) -> None:
    """average <- decay average + (1 - decay) live, over parameters; both modules have the same architecture."""
    torch._foreach_lerp_(_rows(average), _rows(live), 1 - decay)


@torch.no_grad()
def copy_weights(target: nn.Module, source: nn.Module) -> None:
    """target <- source, over parameters."""
    torch._foreach_copy_(_rows(target), _rows(source))


def _rows(module: nn.Module) -> list[Tensor]:
    """What this worker holds of the parameters; both modules are split alike, if at all."""
    return [own(parameter.detach()) for parameter in module.parameters()]
