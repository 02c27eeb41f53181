"""Samples in safetensors files that are mapped into memory: any number of them, and RAM for what is asked."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

OPEN = 256
"""Files mapped at a time."""


@dataclass(frozen=True)
class Part:
    """Samples whose images are of one size: name -> [samples, ...], and their captions, none where they have none."""

    tensors: dict[str, Tensor]
    captions: list[str]


def write_chunk(file: Path, parts: Mapping[str, Part], left_out: list[tuple[str, str]]) -> None:
    """One chunk.

    Args:
        parts: by the size of their images.
        left_out: what could not be used, and why.
    """
    samples = {size: len(next(iter(part.tensors.values()))) for size, part in parts.items()}
    captions = {size: part.captions for size, part in parts.items()}
    about = {"samples": samples, "captions": captions, "left_out": left_out}
    tensors = {f"{size}/{name}": tensor for size, part in parts.items() for name, tensor in part.tensors.items()}
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        file,
        metadata={name: json.dumps(told) for name, told in about.items()},
    )


class Chunks:
    """The samples of all chunks, one after the other; those with images of one size before those of the next.

    Attributes:
        names: of the tensors.
        sizes: how many samples have images of each size, in the order of their places.
        captions: of the first samples, as many as the first parts have that hold `captions_of`.
        left_out: keys of what could not be used, and why.
    """

    def __init__(self, files: Sequence[Path], captions_of: int = 0) -> None:
        self.names: list[str] = []
        self.sizes: Counter[str] = Counter()
        self.captions: list[str] = []
        self.left_out: list[tuple[str, str]] = []
        found: list[tuple[str, Path, int]] = []
        for file in files:
            about = _about(file)
            self.left_out += [(key, why) for key, why in json.loads(about["left_out"])]
            found += [(size, file, samples) for size, samples in json.loads(about["samples"]).items()]
        self._parts = sorted(found, key=lambda part: part[0])
        starts = [0]
        for size, file, samples in self._parts:
            if starts[-1] < captions_of:
                self.captions += json.loads(_about(file)["captions"])[size]
            self.sizes[size] += samples
            starts.append(starts[-1] + samples)
        self._starts = torch.tensor(starts)
        if self._parts:
            keys = _mapped(self._parts[0][1]).keys()
            self.names = sorted({key.partition("/")[2] for key in keys})

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, places: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Of places int64 [B] on the CPU: name -> [B, ...], copied. Images of several sizes are not put together."""
        numbers = torch.searchsorted(self._starts, places, right=True) - 1
        within = (places - self._starts[numbers]).tolist()
        found: dict[str, Tensor] = {}
        for number in numbers.unique().tolist():
            here = (numbers == number).nonzero().flatten().tolist()
            size, file, _ = self._parts[number]
            for name in names:
                rows = _mapped(file).get_tensor(f"{size}/{name}")
                copied = found.setdefault(name, rows.new_empty(len(places), *rows.shape[1:]))
                for i in here:
                    copied[i] = rows[within[i]]
        return found


def _about(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as chunk:
        told: dict[str, str] = chunk.metadata()
    return told


@lru_cache(maxsize=OPEN)
def _mapped(file: Path) -> Any:
    return safe_open(file, framework="pt")
