"""The tensors of a running stage by name: what changes, and what its optimizers remember.

Split or whole, they have the same names, so a state goes from any number of workers to any other.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from workers.rows import own, own_rows, split_like
from workers.state import Saved

STEP = "step"
"""What Adam counts by, the one thing it remembers that has not its parameter's shape."""


def collect(modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """`net/<module>/<name>`, and `optimizer/<module>/<number of the parameter>.<name>`; no copies."""
    live = {f"net/{n}/{key}": tensor for n, module in modules.items() for key, tensor in module.state_dict().items()}
    for role, optimizer in optimizers.items():
        for i, parameter in enumerate(modules[role].parameters()):
            remembered = optimizer.state.get(parameter, {})
            live |= {f"optimizer/{role}/{i}.{name}": tensor for name, tensor in remembered.items()}
    return live


@torch.no_grad()
def restore(
    live: Mapping[str, Tensor], modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Put back what `collect` has collected. Raises KeyError if something is missing."""
    for name, module in modules.items():
        for key, tensor in module.state_dict().items():
            own(tensor).copy_(_rows(live, f"net/{name}/{key}", tensor))
    for role, optimizer in optimizers.items():
        parameters, prefix = list(modules[role].parameters()), f"optimizer/{role}/"
        for key in (key for key in live if key.startswith(prefix)):
            number, name = key.removeprefix(prefix).split(".", 1)
            parameter = parameters[int(number)]
            if name == STEP or not isinstance(parameter, DTensor):
                optimizer.state[parameter][name] = live[key].to(parameter.device)
            else:
                rows = _rows(live, key, parameter).to(parameter.device)
                optimizer.state[parameter][name] = split_like(parameter, rows)


def _rows(live: Mapping[str, Tensor], name: str, tensor: Tensor) -> Tensor:
    """What this worker is to hold of `name`, which has the shape of `tensor` and is held as that is."""
    if not isinstance(tensor, DTensor):
        return live[name]
    start, stop = own_rows(tensor)
    return live.rows(name, start, stop) if isinstance(live, Saved) else live[name][start:stop]
