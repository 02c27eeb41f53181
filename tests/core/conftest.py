"""A host without a cluster, an oracle teacher, and a network to distil it into."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from learning import fitted_mixture, training_points

from service.status import Wish
from workers.data.source import ImageSource
from workers.models.mixture import MixtureDenoiser


class LocalHost:
    """Keeps everything that a run tells it. `stop_at` asks it to stop after that many steps."""

    device = torch.device("cpu")

    def __init__(self, store: Path | None = None, rank: int = 0, world_size: int = 1) -> None:
        self.store, self.rank, self.world_size = store, rank, world_size
        self.phases: list[str] = []
        self.steps: dict[int, dict[str, float]] = {}
        self.samples: list[tuple[int, int, str, int]] = []
        self.saved: list[int] = []
        self.students: list[dict[str, Any]] = []
        self.tensors: dict[str, dict[str, torch.Tensor]] = {}
        self.files = tempfile.TemporaryDirectory(prefix="fewstep-test-")
        self.stop_at: int | None = None
        self.stop_wish = Wish.PAUSE

    def phase(self, phase: str) -> None:
        self.phases.append(phase)

    def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
        assert step not in self.steps, f"step {step} was reported twice"
        self.steps[step] = values

    def log(self, level: str, message: str) -> None:
        pass

    def sample(self, step: int, stage: int, role: str, sampling_steps: int, png: bytes) -> None:
        assert png.startswith(b"\x89PNG")
        self.samples.append((step, stage, role, sampling_steps))

    def save_checkpoint(self, step: int, folder: Path) -> None:
        self.saved.append(step)
        if self.store:
            shutil.copytree(folder, self.store / f"{step:08d}", dirs_exist_ok=True)

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        yield max(self.store.iterdir(), default=None) if self.store and self.store.exists() else None

    def wish(self) -> Wish:
        return self.stop_wish if self.stop_at is not None and max(self.steps, default=0) >= self.stop_at else Wish.RUN

    def student(self, folder: Path, grid: bytes, record: dict[str, Any]) -> None:
        self.students.append(record)

    def cached(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return make()

    def cached_tensors(self, key: str, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        if key not in self.tensors:
            self.tensors[key] = make()
        return self.tensors[key]

    def cached_file(self, key: str, write: Callable[[Path], None]) -> Path:
        path = Path(self.files.name) / hashlib.sha256(key.encode()).hexdigest()
        if not path.exists():
            write(path)
        return path


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def local_host() -> type[LocalHost]:
    return LocalHost


@pytest.fixture(scope="session")
def mixture() -> MixtureDenoiser:
    return fitted_mixture()


@pytest.fixture(scope="session")
def mixture_points(mixture: MixtureDenoiser) -> ImageSource:
    return training_points(mixture)
