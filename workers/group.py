"""The ranks of one run: how they find each other, agree, and learn that one of them failed.

A rank that fails by its own fault returns from the training function, so its process lives on and its peers would wait
for it until a timeout. It therefore leaves a word in the rendezvous store and closes its connections: the peers' next
collective fails at once, and they find the word. No word means that the peer's process died.
"""

from datetime import timedelta

import ray
import torch
import torch.distributed as dist
from ray.train.collective import broadcast_from_rank_zero
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

PATIENCE = timedelta(minutes=30)
FAILURE = "failure"


class Group:
    """A torch process group; with one rank there is none and every call is free."""

    def __init__(self, rank: int, world_size: int, store: TCPStore | None) -> None:
        self.rank = rank
        self.world_size = world_size
        self._store = store

    @classmethod
    def join(cls, rank: int, world_size: int, cuda: bool) -> "Group":
        """Collective. Meet on a port that rank 0 finds free."""
        if world_size == 1:
            return cls(rank, world_size, None)
        host, port, store = ray.util.get_node_ip_address(), 0, None
        if rank == 0:
            store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)
            port = store.port
        where = broadcast_from_rank_zero({"host": host, "port": port})
        if store is None:
            store = TCPStore(where["host"], where["port"], is_master=False, timeout=PATIENCE)
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(
            backend, store=PrefixStore("ranks", store), rank=rank, world_size=world_size, timeout=PATIENCE
        )
        return cls(rank, world_size, store)

    def agree(self, value: int) -> int:
        """Collective. Rank 0's value."""
        if self._store is None:
            return value
        message = torch.tensor([value], dtype=torch.int64)
        dist.broadcast(message, src=0)
        return int(message.item())

    def total(self, value: int) -> int:
        """Collective. The sum of all ranks' values."""
        if self._store is None:
            return value
        message = torch.tensor([value], dtype=torch.int64)
        dist.all_reduce(message)
        return int(message.item())

    def leave(self, failure: str | None = None) -> None:
        """Close the connections; with a `failure`, leave word of it first."""
        if self._store is None:
            return
        if failure is not None:
            self._store.set(FAILURE, failure)
        if dist.is_initialized():
            dist.destroy_process_group()

    def failure(self) -> str | None:
        """The word that a failed rank has left; None also when rank 0, which keeps it, is gone."""
        if self._store is None:
            return None
        try:
            return self._store.get(FAILURE).decode() if self._store.check([FAILURE]) else None
        except dist.DistError:
            return None


def lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because a peer did not answer. Gloo has no error type of its own."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
