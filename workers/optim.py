"""One optimizer per role, its schedule, and gradients that all workers agree on."""

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

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
    return torch.optim.Adam(module.parameters(), lr=learning_rate, betas=betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def average_over_workers(tensors: Iterable[Tensor | None]) -> None:
    """Mean over all workers, in place, in one message; nothing to do for one worker."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return
    present = [tensor for tensor in tensors if tensor is not None]
    flat = torch.cat([tensor.flatten() for tensor in present])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, part in zip(present, flat.split([tensor.numel() for tensor in present]), strict=True):
        tensor.copy_(part.view_as(tensor))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors, `<parameter's number>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": tensor for i, entry in state.items() for name, tensor in entry.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
