"""The bytes of the tensors that are alive, and their peak: on a CPU, where no allocator counts them, or on `meta`."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Counts the storage of every tensor that an operation gives while this mode is on, until it is freed.

    What a kernel allocates and frees within one operation is not seen.

    Args:
        modules: whose tensors are there already, and count.
    """

    def __init__(self, modules: Iterable[nn.Module] = ()) -> None:
        super().__init__()
        self.now = self.highest = 0
        self._alive: dict[int, weakref.ref[Any]] = {}
        self.add(modules)

    def add(self, modules: Iterable[nn.Module]) -> None:
        """Count their tensors, which no operation has given: those of weights that were loaded."""
        for module in modules:
            for tensor in [*module.parameters(), *module.buffers()]:
                self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return out

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return

        def freed(_: Any) -> None:
            if self._alive.pop(key, None) is not None:
                self.now -= size

        self._alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.highest = max(self.highest, self.now)


def passes(network: Callable[[], Tensor], modules: Iterable[nn.Module]) -> tuple[int, int]:
    """Bytes that one call of `network` keeps for its gradient, and the peak of a call without any, beside `modules`."""
    with torch.enable_grad(), Peak(modules) as peak:
        before = peak.now
        out = network()
        kept = peak.now - before
    del out
    with torch.no_grad(), Peak(modules) as peak:
        before = peak.now
        network()
    return kept, peak.highest - before
