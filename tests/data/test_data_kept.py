"""Files that are kept in the store: written whole, fetched once, made once for all."""

from pathlib import Path

import pytest
import torch

from service.observations import AttemptOrder
from service.spec import JobSpec
from service.status import Wish
from workers import machine
from workers.group import Group
from workers.loop import RayHost
from workers.store import Store, StoreLost


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(machine, "FETCHED", tmp_path / "fetched")
    return Store(str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path}")


def test_a_file_comes_back_as_it_was_put(store: Store, tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(b"abc" * 1000)
    assert store.file("cache/a") is None
    store.put_file(tmp_path / "made", "cache/a")
    found = store.file("cache/a")
    assert found is not None
    assert found.read_bytes() == b"abc" * 1000
    assert store.file("cache/a") == found, "fetched once"
    assert [file.name for file in found.parent.iterdir()] == [found.name], "nothing half-written stays"


def test_a_file_that_cannot_be_put_is_the_stores_loss(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreLost):
        store.put_file(tmp_path / "missing", "cache/a")
    assert store.file("cache/a") is None


def test_what_ranks_of_a_job_keep_is_made_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = AttemptOrder(
        attempt_id="att_1",
        job_id="job_1",
        number=1,
        spec=JobSpec.model_validate({"teacher": "digits", "method": {"kind": "progressive"}}),
        teacher="digits",
        teacher_source="builtin:digits",
        teacher_sha256="0" * 64,
        store=str(tmp_path / "store"),
        folder="jobs/job_1",
        acknowledged=0,
        wish=Wish.RUN,
    )
    hosts = [RayHost(order, Group(rank, 1, None), None, torch.device("cpu")) for rank in range(2)]
    made: list[int] = []

    def write(file: Path) -> None:
        made.append(1)
        file.write_bytes(b"chunk")

    for host in hosts:
        monkeypatch.setattr(host, "store", store)
    assert [host.cached_file("key", write).read_bytes() for host in hosts] == [b"chunk", b"chunk"]
    assert hosts[0].cached_file("other key", write) != hosts[1].cached_file("key", write)
    assert len(made) == 2
