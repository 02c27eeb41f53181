"""What a training run asks of the world around it. The training core knows this protocol and no Ray.

`workers.loop` implements it on Ray Train; tests and benchmarks implement it in a few lines.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from service.status import Wish


class Host(Protocol):
    """One per rank. Calls marked *collective* are made by every rank at the same step, in the same order."""

    rank: int
    world_size: int
    device: torch.device

    def phase(self, phase: Literal["starting", "training", "evaluating", "exporting"]) -> None:
        """Announce a part of the run; rank 0 alone is heard."""

    def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
        """Record one optimizer step's figures, `step` counted from 1 over all stages; never blocks on the network."""

    def log(self, level: Literal["debug", "info", "warning", "error"], message: str) -> None:
        """Write one line for the user."""

    def sample(
        self, step: int, stage: int, role: Literal["student", "teacher"], sampling_steps: int, png: bytes
    ) -> None:
        """Store a preview grid."""

    def save_checkpoint(self, step: int, folder: Path) -> None:
        """Collective. Store the files of all ranks' folders as one, durably, under `step`; returns when it is safe."""

    def latest_checkpoint(self) -> AbstractContextManager[Path | None]:
        """Collective. A local copy of the newest durable checkpoint's folder, or None; opened files stay readable when
        the copy is gone."""

    def wish(self) -> Wish:
        """Collective. What the user wants now; every rank gets the same answer."""

    def student(self, folder: Path, grid: bytes, record: dict[str, Any]) -> None:
        """Store a student's folder and its grid, and record it: `StudentExported` less seq, at, path and grid."""

    def fetch(self, path: str) -> Path:
        """A local copy of a folder of the store, by its path there. FileNotFoundError."""

    def cached(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """`make()`'s JSON-able answer, kept in the store under `key` for all jobs."""

    def cached_tensors(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """`make()`'s tensors, on the CPU, kept in the store under `key` for all jobs."""

    def cached_file(self, key: str, write: Callable[[Path], None]) -> Path:
        """A local copy, for reading, of the file that `write` makes; kept in the store under `key` for all jobs."""
