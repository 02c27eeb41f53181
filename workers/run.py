"""Run a job on this machine alone, without Ray or a control plane: `python -m workers.run job.yaml --out FOLDER`.

The same training core with the plainest host: everything that the job tells lands in the folder, which also holds its
checkpoints, so that the same command goes on where it was stopped.
"""

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from rich.progress import Progress, TaskID
from safetensors.torch import load_file, save_file
from torch import Tensor

from service.spec import JobSpec
from service.status import Wish
from workers import stages
from workers.data.dataset import look
from workers.store import local_folder


class FolderHost:
    """`workers.host.Host` of one process, on a folder: metrics.jsonl, samples/, checkpoints/, students/, cache/."""

    rank = 0
    world_size = 1

    def __init__(self, folder: Path, device: torch.device, progress: Progress | None = None) -> None:
        self.folder, self.device = folder, device
        self._progress = progress
        self._task: TaskID | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def phase(self, phase: Literal["starting", "training", "evaluating", "exporting"]) -> None:
        if self._progress and self._task is None:
            self._task = self._progress.add_task(phase, total=None)
        if self._progress and self._task is not None:
            self._progress.update(self._task, description=phase)

    def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "stage": stage, **values}) + "\n")
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=step)

    def log(self, level: Literal["debug", "info", "warning", "error"], message: str) -> None:
        if self._progress:
            self._progress.console.print(f"{level:<7} {message}", highlight=False, markup=False)

    def sample(
        self, step: int, stage: int, role: Literal["student", "teacher"], sampling_steps: int, png: bytes
    ) -> None:
        samples = self.folder / "samples"
        samples.mkdir(exist_ok=True)
        (samples / f"{role}-{stage}-{step:08d}-{sampling_steps}.png").write_bytes(png)

    def save_checkpoint(self, step: int, folder: Path) -> None:
        target = self.folder / "checkpoints" / f"{step:08d}"
        new = target.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(folder, new)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(new, target)
        for older in self._checkpoints()[:-2]:
            shutil.rmtree(older)

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        yield next(reversed(self._checkpoints()), None)

    def _checkpoints(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("checkpoints/*") if p.suffix != ".new")

    def wish(self) -> Wish:
        return Wish.RUN

    def student(self, folder: Path, grid: bytes, record: dict[str, Any]) -> None:
        target = self.folder / "students" / record["label"]
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        target.with_suffix(".png").write_bytes(grid)
        target.with_suffix(".json").write_text(json.dumps(record, indent=2))

    def fetch(self, path: str) -> Path:
        """Of this machine: from the folder that the command is run in."""
        if not Path(path).is_dir():
            raise FileNotFoundError(f"there is no folder {path}")
        return Path(path)

    def _cache(self, key: str) -> Path:
        return self.folder / "cache" / hashlib.sha256(key.encode()).hexdigest()[:32]

    def cached(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self._cache(key).with_suffix(".json")
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(make()))
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def cached_tensors(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        path = self._cache(key).with_suffix(".safetensors")
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            save_file(make(), path)
        return load_file(path)

    def cached_file(self, key: str, write: Callable[[Path], None]) -> Path:
        path = self.folder / "cache" / hashlib.sha256(key.encode()).hexdigest()[:32]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            new = path.with_suffix(".new")
            write(new)
            os.replace(new, path)
        return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", type=Path, help="YAML or JSON job spec; its teacher is 'digits' or a diffusers folder")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--data", type=Path, help="a dataset's folder, or a file of prompts; its format is found out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    spec = JobSpec.model_validate(yaml.safe_load(options.spec.read_text()))
    teacher = local_folder("builtin:digits" if spec.teacher == "digits" else spec.teacher)
    with Progress() as progress:
        host = FolderHost(options.out, torch.device(options.device), progress)
        host.phase("starting")
        progress.update(TaskID(0), total=spec.total_steps())
        stages.run(spec, teacher, host, look(options.data) if options.data else None)


if __name__ == "__main__":
    main()
