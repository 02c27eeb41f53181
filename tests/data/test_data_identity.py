"""Teacher and dataset are the registered ones, and those that a checkpoint was trained with, or the job ends."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from made import pixel_teacher, png
from safetensors.torch import load_file, save_file

from service.errors import DataInvalid, TeacherInvalid
from service.inspection import inspect
from service.spec import JobSpec
from service.storage import Storage
from service.stored_folder import StoredFolder
from workers import finish, stages
from workers.artifact import folder_sha256
from workers.data.dataset import look
from workers.identity import HubCopy, LocalFolder
from workers.progress import Progress
from workers.run import FolderHost

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SPEC = JobSpec.model_validate(
    {
        "teacher": "tiny",
        "data": "pets",
        "method": {"kind": "consistency", "iterations": 4, "batch_size": 4},
        "checkpoint_every": 2,
        "preview_every": 1000,
        "evaluation": {"teacher_steps": 1},
    }
)


class Killed(Exception):
    pass


class Host(FolderHost):
    """Dies at step `dies_at`; keeps its log."""

    def __init__(self, folder: Path, dies_at: int | None = None) -> None:
        super().__init__(folder, torch.device("cpu"))
        self.dies_at, self.told = dies_at, list[str]()

    def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
        super().metrics(step, stage, values)
        if step == self.dies_at:
            raise Killed

    def log(self, level: Any, message: str) -> None:
        self.told.append(message)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    (tmp_path / "teacher").mkdir()
    return pixel_teacher(tmp_path / "teacher", 2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Seven images of two classes."""
    for i in range(7):
        file = tmp_path / "data" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(i))
    return tmp_path / "data"


@pytest.fixture
def run(teacher: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a job that was killed after its checkpoint at step 2."""
    monkeypatch.setattr(finish, "export", lambda *_, **__: None)
    with pytest.raises(Killed):
        stages.run(SPEC, teacher, Host(tmp_path / "run", dies_at=3), look(data))
    return tmp_path / "run"


def noise(teacher: Path) -> None:
    """Replace its weights."""
    replaced = {name: torch.randn_like(weight) for name, weight in load_file(teacher / WEIGHTS).items()}
    save_file(replaced, teacher / WEIGHTS, metadata={"format": "pt"})


def test_a_job_goes_on_with_what_it_was_trained_with(run: Path, teacher: Path, data: Path) -> None:
    assert stages.run(SPEC, teacher, Host(run), look(data)).step == 4


def test_a_resume_with_another_teacher_is_refused(run: Path, teacher: Path, data: Path) -> None:
    before = folder_sha256(teacher)
    noise(teacher)
    with pytest.raises(TeacherInvalid) as refused:
        stages.run(SPEC, teacher, Host(run), look(data))
    said = refused.value.detail
    assert "the checkpoint of step 2 of stage 1 was trained with the teacher 'tiny'" in said
    assert before[:12] in said
    assert folder_sha256(teacher)[:12] in said
    assert "restore them" in said


def test_a_resume_with_another_dataset_is_refused(run: Path, teacher: Path, data: Path) -> None:
    before = look(data).identity
    for file in sorted(data.glob("*/*"))[:3]:
        file.unlink()
    with pytest.raises(DataInvalid) as refused:
        stages.run(SPEC, teacher, Host(run), look(data))
    said = refused.value.detail
    assert "was trained with the dataset 'pets'" in said
    assert before[:12] in said
    assert look(data).identity[:12] in said
    with pytest.raises(DataInvalid, match="are now none"):
        stages.run(SPEC.model_copy(update={"data": None}), teacher, Host(run))


def test_an_older_checkpoint_goes_on_with_a_warning(run: Path, teacher: Path, data: Path) -> None:
    for file in run.glob("checkpoints/*/state.json"):
        meta = json.loads(file.read_text())
        del meta["teacher"], meta["dataset"]
        file.write_text(json.dumps(meta))
    noise(teacher)
    host = Host(run)
    assert stages.run(SPEC, teacher, host, look(data)).step == 4
    assert any("does not say with which teacher" in line for line in host.told)


def test_a_teacher_that_was_replaced_while_it_trained_is_not_exported(
    teacher: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[int] = []
    monkeypatch.setattr(finish, "export", lambda *_, **__: exported.append(1))

    class Replaced(Host):
        def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
            if step == 4:
                noise(teacher)

    with pytest.raises(TeacherInvalid, match="was trained with the teacher 'tiny'"):
        stages.run(SPEC, teacher, Replaced(tmp_path / "run"), look(data))
    assert not exported


def test_workers_hash_as_the_control_plane_does(teacher: Path, tmp_path: Path) -> None:
    shutil.copytree(teacher, tmp_path / "store/teachers/t")
    registered = inspect(StoredFolder(Storage(str(tmp_path / "store")), "teachers/t"))
    progress = Progress()
    assert inspect(LocalFolder(teacher, progress)) == registered
    assert progress.done == (teacher / WEIGHTS).stat().st_size
    noise(teacher)
    assert inspect(LocalFolder(teacher, progress)).sha256 != registered.sha256


def test_small_files_of_the_hub_are_known_by_gits_hash(teacher: Path, tmp_path: Path) -> None:
    """The client keeps a file under the hash that the hub tells of it."""
    large = inspect(HubCopy(teacher, Progress())).sha256
    blob = tmp_path / "blobs" / ("0" * 40)
    blob.parent.mkdir()
    (teacher / WEIGHTS).rename(blob)
    (teacher / WEIGHTS).symlink_to(blob)
    small = inspect(HubCopy(teacher, Progress())).sha256
    assert small != large
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert inspect(HubCopy(teacher, Progress())).sha256 not in (small, large)
