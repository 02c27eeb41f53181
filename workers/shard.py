"""Networks split between the workers (FSDP2, arXiv:2304.11277): weights, gradients, averages and optimizer states.

Each worker holds an equal number of rows of every tensor. A block's weights are gathered while it runs, and of its
gradients' mean each worker keeps its own rows. What is no denoiser's network, such as a critic's heads, is small: every
worker holds all of it.
"""

from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from workers.models.denoiser import networks
from workers.models.low_rank import copied
from workers.models.taps import allow_parts
from workers.rows import whole

M = TypeVar("M", bound=nn.Module)


def shard(modules: Iterable[nn.Module], device: torch.device) -> None:
    """Collective. Split every network in `modules`, in place, with the rows of this worker on `device`.

    A network that is split cannot be copied, and all workers must ask it equally often, in the same order.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    modules = list(modules)
    _bring_constants(modules, device)
    for module in modules:
        for network in networks(module):
            parameters = list(network.parameters())
            if not parameters or isinstance(network, FSDPModule):
                continue
            scalars = {parameter for parameter in parameters if parameter.ndim == 0}  # nothing to split
            for block in _blocks(network):
                fully_shard(block, mesh=mesh, ignored_params=scalars)
            allow_parts(fully_shard(network, mesh=mesh, ignored_params=scalars))
        module.to(device)


def _bring_constants(modules: Iterable[nn.Module], device: torch.device) -> None:
    """What low-rank updates are added to, and other buffers: not split, and one for all networks that share it."""
    brought: dict[object, tuple[Tensor, Tensor]] = {}
    for module in modules:
        for part in module.modules():
            for name, buffer in list(part.named_buffers(recurse=False)):
                memory = (buffer.data_ptr(), buffer.dtype, buffer.shape, buffer.stride())
                if memory not in brought:
                    brought[memory] = (buffer, buffer.to(device))  # the first is kept, lest its memory be used again
                setattr(part, name, brought[memory][1])


def _blocks(network: nn.Module) -> Iterable[nn.Module]:
    """What is gathered at once: the members of the network's lists of blocks. The rest is gathered with the root."""
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            yield from (block for block in child if any(True for _ in block.parameters()))


def reshard(modules: Iterable[nn.Module]) -> None:
    """Let go of what the last pass has gathered: from then on parameters are this worker's rows again."""
    for module in modules:
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()


def outline(network: M) -> M:
    """A copy without the weights, to be made before the network is split; `assembled` puts them in."""
    weights: dict[int, Tensor] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        for parameter in network.parameters()
    }
    return copied(network, weights)


def assembled(empty: M, network: nn.Module) -> M:
    """Collective. A copy of the outline `empty` with all the weights of the split `network`, on the CPU."""
    found = copied(empty)
    found.load_state_dict({name: whole(tensor) for name, tensor in network.state_dict().items()}, assign=True)
    return found.requires_grad_(False)
