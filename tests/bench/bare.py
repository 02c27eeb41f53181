"""The training of a spec without a platform: `python bare.py SPEC.json TIMES.json` writes when each step ended."""

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from service.spec import JobSpec
from service.status import Wish
from workers import stages
from workers.models.unet2d import load_teacher
from workers.state import State
from workers.store import local_folder


class BareHost:
    """Does nothing but to note the time of each step; pairs are kept as long as it lives."""

    rank, world_size, device = 0, 1, torch.device("cpu")

    def __init__(self) -> None:
        self.times: list[float] = []
        self.files = tempfile.TemporaryDirectory(prefix="fewstep-bench-")

    def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
        self.times.append(time.time())

    def phase(self, phase: str) -> None:
        pass

    def log(self, level: str, message: str) -> None:
        pass

    def sample(self, step: int, stage: int, role: str, sampling_steps: int, png: bytes) -> None:
        pass

    def save_checkpoint(self, step: int, folder: Path) -> None:
        pass

    def latest_checkpoint(self) -> AbstractContextManager[Path | None]:
        return nullcontext()

    def wish(self) -> Wish:
        return Wish.RUN

    def student(self, folder: Path, grid: bytes, record: dict[str, Any]) -> None:
        pass

    def cached(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return make()

    def cached_file(self, key: str, write: Callable[[Path], None]) -> Path:
        file = Path(self.files.name) / hashlib.sha256(key.encode()).hexdigest()
        if not file.exists():
            write(file)
        return file


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    spec = JobSpec.model_validate_json(Path(sys.argv[1]).read_text())
    host = BareHost()
    stages.train(spec, load_teacher(local_folder("builtin:digits")), host, State())
    with tempfile.NamedTemporaryFile("w", dir=Path(sys.argv[2]).parent, delete=False) as file:
        json.dump(host.times, file)
    Path(file.name).replace(sys.argv[2])
