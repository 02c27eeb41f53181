"""The one saved state of a job: safetensors and JSON, nothing that is unpickled.

Learning rates and randomness are functions of the step, so nets, averages, optimizers and the step are all there is.
Every worker writes the rows that it holds of what is split between them, and the first one all the rest; no worker ever
holds the whole. Any number of workers reads it, each the rows that it is to hold.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from workers.diffusion.sampler import SamplerSpec

META = "state.json"
FORMAT = 2


@dataclass(frozen=True)
class Finished:
    """A student whose training is over."""

    label: str
    method: str
    stage: int
    sampler: SamplerSpec
    training_seconds: float
    weights: dict[str, Tensor]


@dataclass
class State:
    """Where a job stands: `step` steps of stage `stage` are done.

    `live` holds the running stage's tensors by name: nets, averages and optimizers; `Saved` when it was read.
    `teacher` and `dataset` are the hashes of what it is trained with; empty of what is not known, and of no dataset.
    """

    stage: int = 0
    step: int = 0
    training_seconds: float = 0.0
    live: Mapping[str, Tensor] = field(default_factory=dict)
    finished: list[Finished] = field(default_factory=list)
    teacher: str = ""
    dataset: str = ""


class Saved(Mapping[str, Tensor]):
    """Tensors in files of which each has the next rows of some; nothing is read before it is asked for.

    Raises FileNotFoundError if one of the files is missing.
    """

    def __init__(self, files: list[Path], prefix: str) -> None:
        self._parts: dict[str, list[tuple[Any, str]]] = {}
        for file in files:
            opened: Any = safe_open(file, framework="pt")
            for key in opened.keys():  # noqa: SIM118  safe_open is no mapping
                if key.startswith(prefix):
                    self._parts.setdefault(key.removeprefix(prefix), []).append((opened, key))

    def __getitem__(self, name: str) -> Tensor:
        parts = [file.get_tensor(key) for file, key in self._parts[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of a tensor that has as many; no others are read."""
        found, first = [], 0
        parts = [file.get_slice(key) for file, key in self._parts[name]]
        for part in parts:
            rows = part.get_shape()[0]
            low, high = max(start - first, 0), min(stop - first, rows)
            if low < high:
                found.append(part[low:high])
            first += rows
        return torch.cat(found) if found else parts[0][0:0]


def write(state: State, folder: Path, rank: int = 0) -> None:
    """Write what worker `rank` holds into `folder`, where the others' files may be beside it.

    The first worker's JSON file comes last and whole, and names the files of all: a folder without all of them is no
    state. A worker that holds nothing by itself writes none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    split = {f"live/{name}": t for name, t in state.live.items() if isinstance(t, DTensor)}
    tensors = {name: tensor.to_local() for name, tensor in split.items()}
    if rank == 0:
        tensors |= {f"live/{name}": t for name, t in state.live.items() if not isinstance(t, DTensor)}
        for i, student in enumerate(state.finished):
            tensors |= {f"finished/{i}/{name}": tensor for name, tensor in student.weights.items()}
    if tensors or rank == 0:
        ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(ready, folder / _file(rank))
    if rank == 0:
        workers = next(iter(split.values())).device_mesh.size() if split else 1
        _write_meta(state, folder, [_file(i) for i in range(workers)])


def _file(rank: int) -> str:
    return "state.safetensors" if rank == 0 else f"state.{rank}.safetensors"


def _write_meta(state: State, folder: Path, files: list[str]) -> None:
    meta = {
        "format": FORMAT,
        "files": files,
        "stage": state.stage,
        "step": state.step,
        "teacher": state.teacher,
        "dataset": state.dataset,
        "training_seconds": state.training_seconds,
        "finished": [_student_meta(student) for student in state.finished],
    }
    partial = folder / (META + ".partial")
    partial.write_text(json.dumps(meta, indent=1))
    os.replace(partial, folder / META)


def read(folder: Path) -> State:
    """Raises FileNotFoundError if `folder` holds no whole state, ValueError if it is of another format."""
    meta = json.loads((folder / META).read_text())
    if meta["format"] != FORMAT:
        raise ValueError(f"the checkpoint has format {meta['format']}, this version reads {FORMAT}")
    files = [folder / name for name in meta["files"]]
    finished = [_student(m, dict(Saved(files[:1], f"finished/{i}/"))) for i, m in enumerate(meta["finished"])]
    live, hashes = Saved(files, "live/"), (meta.get("teacher", ""), meta.get("dataset", ""))
    return State(meta["stage"], meta["step"], meta["training_seconds"], live, finished, *hashes)


def _student_meta(student: Finished) -> dict[str, Any]:
    return {
        "label": student.label,
        "method": student.method,
        "stage": student.stage,
        "training_seconds": student.training_seconds,
        "sampler": asdict(student.sampler),
    }


def _student(meta: dict[str, Any], weights: dict[str, Tensor]) -> Finished:
    sampler = SamplerSpec(**meta["sampler"] | {"steps": tuple(meta["sampler"]["steps"])})
    return Finished(meta["label"], meta["method"], meta["stage"], sampler, meta["training_seconds"], weights)
