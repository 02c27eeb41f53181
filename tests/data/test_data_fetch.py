"""Folders of a store that is elsewhere: fetched once for a machine, whatever dies while it is done."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from workers import fetch, machine
from workers import progress as waiting
from workers.progress import Progress, waited
from workers.store import Store, StoreLost, local_folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(machine, "FETCHED", tmp_path / "fetched")
    store = Store(f"memory://{tmp_path}")
    store.put(b"{}", "teachers/t/model_index.json")
    store.put(bytes(range(100)), "teachers/t/unet/weights.safetensors")
    store.put(b"", "teachers/t/unet/empty.txt")
    return store


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Pieces that were asked for: the file's name, and from where on. They are short."""
    pieces: list[tuple[str, int]] = []
    whole = MemoryFileSystem.cat_file

    def watched(self: MemoryFileSystem, path: str, start: int = 0, end: int | None = None, **more: Any) -> bytes:
        pieces.append((path.rpartition("/")[2], start))
        time.sleep(0.01)
        return bytes(whole(self, path, start=start, end=end, **more))

    monkeypatch.setattr(MemoryFileSystem, "cat_file", watched)
    monkeypatch.setattr(fetch, "PIECE", 40)
    return pieces


ALL = [("model_index.json", 0), *(("weights.safetensors", start) for start in (0, 40, 80))]


def url(store: Store) -> str:
    return f"memory://{store.root}/teachers/t"


def test_a_folder_is_fetched_once_for_all_ranks_and_attempts(store: Store, asked: list[tuple[str, int]]) -> None:
    with ThreadPoolExecutor(4) as ranks:
        folders = set(ranks.map(lambda _: local_folder(url(store)), range(4)))
    (folder,) = folders
    assert sorted(asked) == ALL
    found = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    weights = bytes(range(100))
    assert found == {"model_index.json": b"{}", "unet/weights.safetensors": weights, "unet/empty.txt": b""}
    assert [path for path in machine.FETCHED.iterdir() if path.is_dir()] == [folder], "nothing half-fetched stays"

    store.put(weights[::-1], "teachers/t/unet/weights.safetensors")
    changed = local_folder(url(store))
    assert changed != folder
    assert (changed / "unet/weights.safetensors").read_bytes() == weights[::-1]


def test_what_was_fetched_stands_when_the_next_attempt_starts(
    store: Store, asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = MemoryFileSystem.cat_file

    def breaks(self: MemoryFileSystem, path: str, start: int = 0, end: int | None = None, **more: Any) -> bytes:
        if start == 80:
            raise ConnectionError("reset by peer")
        return bytes(watched(self, path, start=start, end=end, **more))

    with monkeypatch.context() as broken:
        broken.setattr(MemoryFileSystem, "cat_file", breaks)
        with pytest.raises(StoreLost, match="reset by peer"):
            local_folder(url(store))
    progress = Progress()
    folder = local_folder(url(store), progress=progress)
    assert (folder / "unet/weights.safetensors").read_bytes() == bytes(range(100))
    assert sorted(asked) == ALL
    assert progress.done == progress.total == 102


def test_a_name_that_leads_out_of_the_folder_is_not_followed(store: Store, tmp_path: Path) -> None:
    store.fs.store[f"{store.root}/teachers/t/../../out.txt"] = store.fs.store[f"{store.root}/teachers/t/unet/empty.txt"]
    try:
        with pytest.raises(StoreLost, match="no name of a file in a folder"):
            local_folder(url(store))
    finally:
        del store.fs.store[f"{store.root}/teachers/t/../../out.txt"]
    assert not list(tmp_path.rglob("out.txt"))


def test_a_full_disk_of_the_machine_is_told_from_a_full_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch, "_fetch", full)
    with pytest.raises(StoreLost, match=f"no space left in {machine.FETCHED}"):
        local_folder(url(store))


def test_work_that_fails_is_not_waited_for() -> None:
    def fails(_: Progress) -> None:
        raise StoreLost("gone")

    def total(_: int) -> int:
        raise AssertionError("the other workers are told by the group")

    with pytest.raises(StoreLost, match="gone"):
        waited(fails, total, lambda *_: None)


def test_a_worker_that_is_done_tells_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(waiting, "SIGN_SECONDS", 0.02)
    met, given = threading.Barrier(2, timeout=10), [0, 0]
    told: list[list[tuple[int, int]]] = [[], []]

    def work(number: int, progress: Progress) -> int:
        progress.total = 5 * number
        for done in range(1, 5 * number):
            progress.add(1)
            while (done, 5) not in told[0]:
                time.sleep(0.01)
        return number

    def rank(number: int) -> int:
        def total(value: int) -> int:
            given[number] = value
            met.wait()
            found = sum(given)
            met.wait()
            return found

        return waited(partial(work, number), total, lambda *seen: told[number].append(seen))

    with ThreadPoolExecutor(2) as ranks:
        assert list(ranks.map(rank, range(2))) == [0, 1]
    assert told[0] == [(done, 5) for done in range(1, 5)]


def hashed(folder: Path, made: list[int]) -> str:
    def make() -> str:
        made.append(1)
        return (folder / "weights").read_text()

    return machine.hashed_once("test", folder, make)


@pytest.mark.parametrize(("size", "times"), [(0, 1), (machine.WORTH_KEEPING, 3)])
def test_large_files_are_hashed_once_until_they_change(
    size: int, times: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "WORTH_KEEPING", size)
    monkeypatch.setattr(machine, "SETTLED_SECONDS", -60)
    folder, made = tmp_path / "teacher", list[int]()
    folder.mkdir()
    (folder / "weights").write_text("one")
    assert [hashed(folder, made) for _ in range(3)] == ["one"] * 3
    assert len(made) == times
    time.sleep(0.02)  # more than a tick of the file system's clock
    (folder / "weights").write_text("two")
    assert hashed(folder, made) == "two"


def test_files_that_may_still_change_unseen_are_hashed_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "WORTH_KEEPING", 0)
    monkeypatch.setattr(machine, "SETTLED_SECONDS", 60)
    folder, made = tmp_path / "teacher", list[int]()
    folder.mkdir()
    (folder / "weights").write_text("one")
    assert [hashed(folder, made) for _ in range(2)] == ["one"] * 2
    assert len(made) == 2
