"""Encoded samples in safetensors files that are mapped into memory: any number of them, and RAM for what is asked."""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

OPEN = 256
"""Files mapped at a time."""


def write_chunk(
    file: Path, tensors: dict[str, Tensor], samples: int, captions: list[str], left_out: list[tuple[str, str]]
) -> None:
    """One chunk: name -> [samples, ...].

    Args:
        captions: of the samples; empty where they have none.
        left_out: what could not be used, and why.
    """
    about = {"samples": str(samples), "captions": json.dumps(captions), "left_out": json.dumps(left_out)}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata=about)


class Chunks:
    """The samples of all chunks, one after the other.

    Attributes:
        names: of the tensors.
        captions: of the first samples, as many as the first chunks have that hold `captions_of`.
        left_out: keys of what could not be used, and why.
    """

    def __init__(self, files: Sequence[Path], captions_of: int = 0) -> None:
        self.names: list[str] = []
        self.captions: list[str] = []
        self.left_out: list[tuple[str, str]] = []
        self._files: list[Path] = []
        starts = [0]
        for file in files:
            with safe_open(file, framework="pt") as chunk:
                about = chunk.metadata()
                names = sorted(chunk.keys())
            self.left_out += [(key, why) for key, why in json.loads(about["left_out"])]
            if (samples := int(about["samples"])) == 0:
                continue
            if starts[-1] < captions_of:
                self.captions += json.loads(about["captions"])
            self.names = names
            self._files.append(file)
            starts.append(starts[-1] + samples)
        self._starts = torch.tensor(starts)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, places: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Of places int64 [B] on the CPU: name -> [B, ...], copied."""
        numbers = torch.searchsorted(self._starts, places, right=True) - 1
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        for number, row in zip(numbers.tolist(), (places - self._starts[numbers]).tolist(), strict=True):
            chunk = _mapped(self._files[number])
            for name, rows in found.items():
                rows.append(chunk.get_slice(name)[row : row + 1])
        return {name: torch.cat(rows) for name, rows in found.items()}


@lru_cache(maxsize=OPEN)
def _mapped(file: Path) -> Any:
    return safe_open(file, framework="pt")
