"""What the blocks of a network give on its way, read off while it runs."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method


class _Enough(Exception):
    """The last block that is looked at has run."""


def outputs(network: nn.Module, taps: Sequence[nn.Module], run: Callable[[], object], to_the_end: bool) -> list[Any]:
    """What each of the `taps`, in the order they run, gives while `run` runs the `network`.

    The run is left after the last of them, unless it is to go on `to_the_end`: a network whose blocks are computed
    again for the backward pass must not be left in the middle.
    """
    found: list[Any] = []

    def look(tap: nn.Module, _: Any, output: Any) -> None:
        found.append(output)
        if len(found) == len(taps) and not to_the_end:
            raise _Enough

    def looked() -> list[Any]:
        hooks = [tap.register_forward_hook(look) for tap in taps]
        try:
            run()
        except _Enough:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return found

    split: Any = network
    return list(split.partly(looked)) if isinstance(network, FSDPModule) else looked()


def allow_parts(network: FSDPModule) -> None:
    """Of a network that is split between workers: what is read off it is gathered for the backward pass as well."""
    split: Any = network
    split.partly = _run
    register_fsdp_forward_method(split, "partly")


def _run(run: Callable[[], list[Any]]) -> list[Any]:
    return run()
