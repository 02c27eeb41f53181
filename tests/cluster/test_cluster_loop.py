"""The training function around the training core: what it hands over, and what it says of its own end."""

from pathlib import Path
from typing import Any

import pytest
import torch

from service.errors import DataInvalid, TeacherInvalid
from service.observations import AttemptOrder, DatasetOrder, Failure
from service.status import Reason
from workers import loop, stages
from workers.data.dataset import Dataset
from workers.group import Group

DATA = DatasetOrder(source="data/pets", format="images", content="nothing", samples=1)
ALONE = Group(0, 1, None)


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.observations: list[tuple[type, dict[str, Any]]] = []

    def add(self, kind: type, **fields: Any) -> None:
        self.observations.append((kind, fields))

    def flush(self) -> None: ...


def host(store: Path, told: Told, dataset: DatasetOrder | None = None) -> loop.RayHost:
    about = {"attempt_id": "a", "job_id": "j", "number": 1, "teacher": "t", "teacher_source": "teachers/t"}
    spec = {"teacher": "t", "method": {"kind": "progressive"}}
    order = AttemptOrder.model_validate(
        {**about, "spec": spec, "store": store.as_uri(), "folder": "jobs/j", "acknowledged": 0, "wish": "run"}
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
    assert loop._run(host(tmp_path, Told(), dataset), ALONE) == "done"
    wanted = None if dataset is None else Dataset(dataset, tmp_path / "data/pets")
    assert given == [tmp_path / "teachers/t", wanted]


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
    assert loop._run(host(tmp_path, told), ALONE) == "failed"
    assert told.observations[-1] == (Failure, {"reason": reason, "message": message})
