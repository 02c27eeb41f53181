"""The training function around the training core: what it hands over, and what it says of its own end."""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from service.errors import DataInvalid, TeacherInvalid
from service.observations import AttemptOrder, DatasetOrder, Failure
from service.status import Reason
from service.teachers import inspect_builtin
from workers import loop, machine, progress, stages
from workers.data.dataset import Dataset
from workers.group import Group
from workers.store import Store, local_folder

DATA = DatasetOrder(source="data/pets", format="images", content="nothing", samples=1)
ALONE = Group(0, 1, None)
DIGITS = local_folder("builtin:digits")


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.observations: list[tuple[type, dict[str, Any]]] = []

    def add(self, kind: type, **fields: Any) -> None:
        self.observations.append((kind, fields))

    def flush(self) -> None: ...


def host(store: str, told: Told, dataset: DatasetOrder | None = None, teacher: str = "builtin:digits") -> loop.RayHost:
    about = {"attempt_id": "a", "job_id": "j", "number": 1, "teacher": "t", "teacher_source": teacher}
    about["teacher_sha256"] = inspect_builtin().sha256
    spec = {"teacher": "t", "method": {"kind": "progressive"}}
    order = AttemptOrder.model_validate(
        {**about, "spec": spec, "store": store, "folder": "jobs/j", "acknowledged": 0, "wish": "run"}
    ).model_copy(update={"dataset": dataset})
    return loop.RayHost(order, ALONE, told, torch.device("cpu"))  # type: ignore[arg-type]


@pytest.mark.parametrize("dataset", [None, DATA])
def test_the_core_is_given_the_orders_dataset(
    dataset: DatasetOrder | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def run(spec: object, teacher: Path, host: object, dataset: Dataset | None) -> stages.Outcome:
        given.extend([teacher, dataset])
        return stages.Outcome(None, 1)

    monkeypatch.setattr(stages, "run", run)
    assert loop._run(host(tmp_path.as_uri(), Told(), dataset), ALONE) == "done"
    wanted = None if dataset is None else Dataset(dataset, tmp_path / "data/pets")
    assert given == [DIGITS, wanted]


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (DataInvalid("2 images cannot be read."), Reason.DATA_INVALID, "2 images cannot be read."),
        (TeacherInvalid("unet/ is missing."), Reason.TEACHER_INVALID, "unet/ is missing."),
        (ZeroDivisionError("division by zero"), Reason.TRAINING_ERROR, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_a_user_can_mend_is_told_in_its_own_words(
    error: Exception, reason: Reason, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> None:
        raise error

    monkeypatch.setattr(stages, "run", run)
    told = Told()
    assert loop._run(host(tmp_path.as_uri(), told), ALONE) == "failed"
    assert told.observations[-1] == (Failure, {"reason": reason, "message": message})


def test_a_teacher_other_than_the_registered_one_ends_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "run", lambda *_: stages.Outcome(None, 1))
    folder, told = tmp_path / "teachers/t", Told()
    shutil.copytree(DIGITS, folder)
    assert loop._run(host(tmp_path.as_uri(), told, teacher="teachers/t"), ALONE) == "done"
    registered = inspect_builtin().sha256[:12]
    assert any(registered in fields.get("message", "") for _, fields in told.observations), "the log tells it"

    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert loop._run(host(tmp_path.as_uri(), told, teacher="teachers/t"), ALONE) == "failed"
    kind, fields = told.observations[-1]
    assert (kind, fields["reason"]) == (Failure, Reason.TEACHER_INVALID)
    assert f"the teacher 't' was registered with weights of sha256 {registered}…" in fields["message"]
    assert "register what is there now under a new name" in fields["message"]

    shutil.rmtree(folder)
    assert loop._run(host(tmp_path.as_uri(), told, teacher="teachers/t"), ALONE) == "failed"
    assert told.observations[-1][1]["reason"] == Reason.TEACHER_INVALID


def test_a_fetch_that_takes_long_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the control plane takes the attempt for one that hangs."""
    monkeypatch.setattr(progress, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(progress, "SIGN_SECONDS", 0.02)
    told = Told()

    def said() -> list[str | None]:
        return [fields.get("phase") or fields.get("message") for _, fields in told.observations]

    def fetch(source: str, *_: object, progress: progress.Progress) -> Path:
        progress.total = 2_000_000_000
        for done in (0.4, 0.8, 1.2):
            progress.add(400_000_000)
            while f"{done} of 2.0 GB are fetched." not in said():
                time.sleep(0.01)
        return DIGITS

    monkeypatch.setattr(stages, "run", lambda *_: stages.Outcome(None, 1))
    monkeypatch.setattr(loop, "local_folder", fetch)
    assert loop._run(host(tmp_path.as_uri(), told), ALONE) == "done"
    assert said().count("starting") == 1 + 3

    monkeypatch.setattr(loop, "local_folder", lambda *_, **__: time.sleep(0.2) or DIGITS)
    told.observations.clear()
    assert loop._run(host(tmp_path.as_uri(), told), ALONE) == "done"
    assert said().count("starting") == 1, "none without progress"


def test_copies_of_checkpoints_go_when_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "FETCHED", tmp_path / "fetched")
    checkpoint = SimpleNamespace(path="anywhere/run/step-00000004")
    monkeypatch.setattr(loop.ray.train, "get_checkpoint", lambda: checkpoint)
    for url in (f"memory://{tmp_path}", str(tmp_path)):
        Store(url).put(b"{}", "jobs/j/run/step-00000004/state.json")
        with host(url, Told()).latest_checkpoint() as copy:
            assert copy is not None
            assert (copy / "state.json").read_bytes() == b"{}"
        assert not [path for path in (tmp_path / "fetched").rglob("*") if path.is_dir() or path.suffix == ".json"]
    assert copy.exists(), "the checkpoint itself stays"
