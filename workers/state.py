"""The one saved state of a job: safetensors and JSON, nothing that is unpickled.

Learning rates and randomness are functions of the step, so nets, averages, optimizers and the step are all there is.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from workers.diffusion.sampler import SamplerSpec

TENSORS, META = "state.safetensors", "state.json"
FORMAT = 1


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

    `live` holds the running stage's tensors by name: nets, averages and optimizers.
    """

    stage: int = 0
    step: int = 0
    training_seconds: float = 0.0
    live: dict[str, Tensor] = field(default_factory=dict)
    finished: list[Finished] = field(default_factory=list)


def write(state: State, folder: Path) -> None:
    """Write into `folder`. The JSON file comes last and whole: a folder without it is no state."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"live/{name}": tensor for name, tensor in state.live.items()}
    for i, student in enumerate(state.finished):
        tensors |= {f"finished/{i}/{name}": tensor for name, tensor in student.weights.items()}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / TENSORS)
    meta = {
        "format": FORMAT,
        "stage": state.stage,
        "step": state.step,
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
    live: dict[str, Tensor] = {}
    weights: list[dict[str, Tensor]] = [{} for _ in meta["finished"]]
    with safe_open(folder / TENSORS, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118  safe_open is no mapping
            part, name = key.split("/", 1)
            if part == "live":
                live[name] = file.get_tensor(key)
            else:
                number, name = name.split("/", 1)
                weights[int(number)][name] = file.get_tensor(key)
    finished = [_student(m, w) for m, w in zip(meta["finished"], weights, strict=True)]
    return State(meta["stage"], meta["step"], meta["training_seconds"], live, finished)


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
