"""One optimizer per role, its schedule, and gradients that all workers agree on."""

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from workers.rows import by_kind

WARMUP_SHARE = 0.02


def schedule(position: int, length: int) -> float:
    """Share of the peak learning rate at step `position` of `length`: a short linear warm-up, then a cosine to 0.

    A function of the step alone: there is no scheduler state to save.
    """
    warmup = max(1, round(WARMUP_SHARE * length))
    if position < warmup:
        return (position + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (position - warmup) / max(1, length - warmup)))


def make_optimizer(module: nn.Module, learning_rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    groups = [{"params": group} for group in by_kind(list(module.parameters()))]
    return torch.optim.Adam(groups, lr=learning_rate, betas=betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def average_over_workers(tensors: Iterable[Tensor | None]) -> None:
    """Mean over all workers, in place, in one message; nothing to do for one worker, or for what is split."""
    present = [tensor for tensor in tensors if tensor is not None and not isinstance(tensor, DTensor)]
    if not present or not (dist.is_initialized() and dist.get_world_size() > 1):
        return
    flat = torch.cat([tensor.flatten() for tensor in present])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, part in zip(present, flat.split([tensor.numel() for tensor in present]), strict=True):
        tensor.copy_(part.view_as(tensor))


def clip_gradients(module: nn.Module, largest: float, scale: float = 1.0) -> Tensor:
    """Divide the gradients by `scale`, and make their norm over all of the module no larger than `largest`.

    Collective where some are split. Returns the norm before it was made smaller.
    """
    kinds = by_kind([parameter for parameter in module.parameters() if parameter.grad is not None])
    norms = []
    for kind in kinds:
        gradients = [parameter.grad for parameter in kind if parameter.grad is not None]
        if scale != 1:
            for gradient in gradients:
                gradient /= scale
        norm = nn.utils.get_total_norm(gradients)
        norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    total = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, largest, total)
    return total
