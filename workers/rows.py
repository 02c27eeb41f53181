"""Tensors of which each worker holds some rows, as FSDP2 splits them: as torch.chunk does."""

from torch import Tensor
from torch.distributed.tensor import DTensor


def whole(tensor: Tensor) -> Tensor:
    """Collective. All rows, on the CPU."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()


def own(tensor: Tensor) -> Tensor:
    """The rows that this worker holds, in the same memory: all of them where the tensor is not split."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def own_rows(tensor: DTensor) -> tuple[int, int]:
    """The first of this worker's rows, and the first after them."""
    rows, workers = len(tensor), tensor.device_mesh.size()
    share = -(-rows // workers)
    start = min(rows, tensor.device_mesh.get_local_rank() * share)
    return start, min(rows, start + share)


def split_like(tensor: DTensor, rows: Tensor) -> DTensor:
    """What has the shape of `tensor`, and of which this worker holds `rows`."""
    mesh, placements = tensor.device_mesh, tensor.placements
    split = DTensor.from_local(rows, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride())
    assert isinstance(split, DTensor)
    return split


def by_kind(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Those that are whole and those that are split, where there are any: one operation takes one kind."""
    kinds = [[t for t in tensors if isinstance(t, DTensor) is split] for split in (False, True)]
    return [kind for kind in kinds if kind]
