"""Low-rank updates of frozen weights (LoRA, arXiv:2106.09685): few numbers to train and to keep, on shared weights."""

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from service.errors import TeacherInvalid

M = TypeVar("M", bound=nn.Module)

A, B = ".lora_A.default.weight", ".lora_B.default.weight"
"""What follows a layer's name in the names of its update's two factors."""


def copied(network: M, others: Mapping[int, Tensor] = MappingProxyType({})) -> M:
    """A copy with a state of its own. Buffers that are no part of the state are constants, which both share.

    Args:
        others: what takes the place of other tensors, by their `id`.
    """
    constants = [
        tensor
        for part in network.modules()
        for name, tensor in part.named_buffers(recurse=False)
        if _constant(part, name)
    ]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in constants} | dict(others))


def with_low_rank(network: M, rank: int, targets: Sequence[str]) -> M:
    """A copy whose state is low-rank updates alone, 0 at first; the weights become constants, the same as `network`'s.

    A layer gives W x + B A x. There is no factor before B A: alpha, which tools read beside the rank, always equals it.

    Args:
        rank: rows of A and columns of B.
        targets: names of linear and convolutional layers, or how they end.

    Raises:
        TeacherInvalid: a target names no layer, or the rank is above that of every layer's weights.
    """
    layers = {name: weight for target in targets for name, weight in named_layers(network, target).items()}
    nothing = [target for target in targets if not named_layers(network, target)]
    if nothing or not layers:
        raise TeacherInvalid(
            f"lora_targets {nothing} name no linear or convolutional layer of this network: "
            f"the names of its layers end in {', '.join(_endings(network))}"
        )
    if rank > (largest := max(min(weight.flatten(1).shape) for weight in layers.values())):
        raise TeacherInvalid(f"a LoRA rank of {rank} is above {largest}, the largest rank that the weights can have")
    shared: dict[int, Tensor] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in network.parameters()}
    network = copy.deepcopy(network, shared | {id(buffer): buffer.detach() for buffer in network.buffers()})
    weights = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(layers)), network)
    for part in list(network.modules()):
        own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        for name, tensor in own:
            if id(tensor) in weights and not _constant(part, name):
                delattr(part, name)
                part.register_buffer(name, tensor.detach(), persistent=False)
    return network


@torch.no_grad()
def merged(network: M, learnt: Mapping[str, Tensor]) -> M:
    """`network`, changed to what a student of it has learnt: updates are added, other tensors take their places.

    Args:
        learnt: the student's state, whether of a network `with_low_rank` or of a whole one.
    """
    layers = updated_layers(learnt)
    state = network.state_dict() if layers else {}
    for layer in layers:
        weight = state[f"{layer}.weight"]
        change = learnt[layer + B].flatten(1) @ learnt[layer + A].flatten(1)
        state[f"{layer}.weight"] = weight + change.reshape(weight.shape).to(weight)
    network.load_state_dict(state | {name: tensor for name, tensor in learnt.items() if not name.endswith((A, B))})
    return network


def named_layers(network: nn.Module, target: str) -> dict[str, Tensor]:
    """Weights of the linear and convolutional layers whose names are the target, or end in it."""
    return {
        name: module.weight
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and f".{name}".endswith(f".{target}")
    }


def updated_layers(learnt: Mapping[str, Tensor]) -> list[str]:
    """Of a student's state: the layers that have low-rank updates; none, where it is of a whole network."""
    return [name.removesuffix(A) for name in learnt if name.endswith(A)]


def only_updates(learnt: Mapping[str, Tensor]) -> bool:
    """Whether a student's state is low-rank updates and nothing else."""
    return all(name.endswith((A, B)) for name in learnt)


def summed(updates: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One update that does what several do together, one after another: its factors are theirs side by side.

    So its rank is the sum of theirs. It is the same at every layer, as not every tool reads others: where an update
    leaves a layer out, its factors are 0.
    """
    layers = sorted({layer for update in updates for layer in updated_layers(update)})
    whole: dict[str, Tensor] = {}
    for layer in layers:
        like = next(update for update in updates if layer + A in update)
        pairs = [
            (update[layer + A], update[layer + B]) if layer + A in update else _zeros(update, like, layer)
            for update in updates
        ]
        whole[layer + A] = torch.cat([a for a, _ in pairs], dim=0)
        whole[layer + B] = torch.cat([b for _, b in pairs], dim=1)
    return whole


def _zeros(update: Mapping[str, Tensor], like: Mapping[str, Tensor], layer: str) -> tuple[Tensor, Tensor]:
    """Factors of the rank of `update`, for a layer that another one changes."""
    rank = len(update[updated_layers(update)[0] + A])
    a, b = like[layer + A], like[layer + B]
    return a.new_zeros(rank, *a.shape[1:]), b.new_zeros(len(b), rank, *b.shape[2:])


def _constant(part: nn.Module, buffer: str) -> bool:
    return buffer in part._non_persistent_buffers_set


def _endings(network: nn.Module) -> list[str]:
    """What a user can name layers by: the last part of each name, with a number's own name before it."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return sorted({".".join(name.split(".")[-2 if name[-1].isdigit() else -1 :]) for name in names})
