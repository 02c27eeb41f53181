"""The precision in which networks are run. Paths, losses, averages and optimizer states stay in float32 and float64."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor, nn

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""By the spec's names; None is that of the weights."""

FIRST_SCALE, GROWS_AFTER, SKIPS_IN_A_ROW = 2.0**16, 2000, 20

_exact: ContextVar[bool] = ContextVar("exact", default=False)


@contextmanager
def exact() -> Iterator[None]:
    """Within, networks are run in the precision of their weights, whatever they are set to."""
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


def rounded(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Within, products and convolutions are in `dtype`; None changes nothing.

    Rounded weights are not kept until the end of the pass, where a split network would let go of its own.
    """
    if dtype is None or _exact.get():
        return nullcontext()
    return torch.autocast(device.type, dtype, cache_enabled=False)


class LossScale(nn.Module):
    """What a role's loss is multiplied by before the backward pass, so that small gradients are no zeros in float16
    (arXiv:1710.03740, section 3.2). Saved with the rest.

    Steps whose gradients are not finite are skipped and halve the scale; many good ones in a row double it. The verdict
    is on the norm of all workers' gradients, so they agree; torch's GradScaler looks at each worker's own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale: Tensor
        self.good: Tensor
        self.skipped: Tensor
        self.register_buffer("scale", torch.tensor(FIRST_SCALE))
        self.register_buffer("good", torch.zeros((), dtype=torch.int64))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))

    def accepts(self, finite: bool) -> bool:
        """Note whether a step's gradients were finite. False when too many in a row were not: that is divergence."""
        if finite:
            self.skipped.zero_()
            self.good += 1
            if int(self.good) == GROWS_AFTER:
                self.scale *= 2
                self.good.zero_()
        else:
            self.good.zero_()
            self.skipped += 1
            self.scale /= 2
        return int(self.skipped) < SKIPS_IN_A_ROW
