"""Pairs of noise and what the teacher makes of it: exact, kept, shared, made in parts, and stopped when asked."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from service.methods.base import PairSettings
from service.status import Wish
from workers import pairs as module
from workers import progress
from workers.data.source import ImageSource, PairSource
from workers.diffusion.guidance import guided
from workers.diffusion.solver import solve
from workers.diffusion.timesteps import even_grid
from workers.models.denoiser import Denoiser
from workers.models.mixture import MixtureDenoiser, six_modes
from workers.models.unet2d import load_teacher
from workers.pairs import CHUNK, CHUNK_BYTES, chunk_size, make_pairs, pairs
from workers.randomness import BatchRng
from workers.store import local_folder

SETTINGS = PairSettings(kind="kd", pairs=2 * CHUNK + 8, pair_steps=4, batch_size=128)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
"""What is left to the rounding of parts of other sizes."""


class Killed(Exception):
    """By the test."""


def watch(teacher: Any, monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None] = lambda _: None) -> list[int]:
    """The rows of every call of the network, filled as they come; `before` is told how many came before."""
    seen: list[int] = []
    asked = teacher.predict

    def predict(x: Tensor, *told: Any, **more: Any) -> Tensor:
        before(len(seen))
        seen.append(len(x))
        answer: Tensor = asked(x, *told, **more)
        return answer

    monkeypatch.setattr(teacher, "predict", predict)
    return seen


def made(host: Any, identity: str = "six", teacher: Denoiser | None = None, **changes: Any) -> PairSource:
    settings = SETTINGS.model_copy(update=changes)
    found = make_pairs(teacher or six_modes(), settings, host, seed=1, identity=identity)
    assert isinstance(found, PairSource)
    return found


def rows(source: PairSource) -> dict[str, Tensor]:
    return source.chunks.rows(torch.arange(len(source.chunks)), source.chunks.names)


def whole(local_host: Any, **told: Any) -> dict[str, Tensor]:
    """All pairs that one worker makes of nothing."""
    host = local_host()  # whose files go with it
    return rows(made(host, **told))


def kept(host: Any) -> list[str]:
    return sorted(os.listdir(host.files.name))


@pytest.fixture(scope="module")
def digits() -> Denoiser:
    return load_teacher(local_folder("builtin:digits"))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 16)


def test_a_pair_is_the_teachers_own_trajectory() -> None:
    teacher: MixtureDenoiser = six_modes().double()
    few, many = (pairs(teacher, steps, 64, seed=0) for steps in (64, 256))
    assert torch.equal(few["noise"], many["noise"])
    assert (few["images"] - many["images"]).abs().max() < 0.02
    exact = solve(
        lambda x, t: teacher.predict(x, t, None), many["noise"].double(), even_grid(256), teacher.path, "dpm2"
    )
    torch.testing.assert_close(many["images"].double(), exact, rtol=0, atol=1e-5)


def test_pairs_are_made_once_and_a_batch_keeps_them_together(local_host: Any) -> None:
    host = local_host()
    source = made(host)
    first, files = rows(source), kept(host)
    assert len(first["images"]) == len(first["noise"]) == SETTINGS.pairs
    assert len(files) == 3
    assert torch.equal(rows(made(host))["images"], first["images"])
    assert kept(host) == files, "nothing was made again"
    made(host, identity="another teacher")
    assert len(kept(host)) == 6
    batch = source.batch(BatchRng(0, batch_size=16))
    for image, noise in zip(batch.images, batch.noise if batch.noise is not None else [], strict=True):
        place = int((first["images"] == image).all(1).nonzero()[0])
        assert torch.equal(first["noise"][place], noise)


@pytest.mark.usefixtures("small_chunks")
def test_batches_are_those_of_all_pairs_in_memory(digits: Denoiser, local_host: Any) -> None:
    """Chunk by chunk in one call each, joined, and drawn from as images are."""
    host = local_host()
    source = made(host, teacher=digits, pairs=40, batch_size=8)
    parts = [
        pairs(digits, SETTINGS.pair_steps, size, (1 << 32) + i, first=16 * i) for i, size in enumerate((16, 16, 8))
    ]
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    ours = rows(source)
    assert torch.equal(ours["noise"], joined["noise"])
    assert torch.equal(ours["labels"], torch.arange(40) % 10)
    torch.testing.assert_close(ours["images"], joined["images"], **CLOSE)
    for step in range(3):
        before = ImageSource(ours["images"], joined["labels"], joined["noise"]).batch(BatchRng(5, step, batch_size=24))
        now = source.batch(BatchRng(5, step, batch_size=24))
        for name in ("images", "labels", "noise"):
            assert torch.equal(getattr(now, name), getattr(before, name))


def test_files_hold_the_pairs_and_memory_what_is_asked(local_host: Any) -> None:
    host = local_host()
    source = made(host)
    assert sum(len(load_file(Path(host.files.name) / name)["/noise"]) for name in kept(host)) == SETTINGS.pairs
    assert not [value for value in vars(source.chunks).values() if isinstance(value, Tensor) and value.numel() > 8]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize(("changes", "workers"), [({}, 1), ({"micro_batches": 3}, 1), ({"micro_batches": 3}, 2)])
def test_no_more_rows_are_in_the_network_than_in_a_training_step(
    digits: Denoiser,
    changes: dict[str, Any],
    workers: int,
    scale: float,
    local_host: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = watch(digits, monkeypatch)
    host = local_host(world_size=workers)
    asked = {"teacher": guided(digits, scale), "guidance_scale": scale, "pairs": 24, "pair_steps": 1}
    source = made(host, batch_size=12, **asked, **changes)
    bound = 12 // workers // changes.get("micro_batches", 1)
    assert max(seen) == bound
    torch.testing.assert_close(rows(source), whole(local_host, batch_size=512, **asked), **CLOSE)
    assert max(seen) == (16 if scale == 1 else 32)


def test_a_guided_pair_is_two_rows_and_none_is_less_than_one() -> None:
    guided_settings = SETTINGS.model_copy(update={"guidance_scale": 2.0})
    assert [SETTINGS.pairs_at_once(images) for images in (1, 5, 8)] == [1, 5, 8]
    assert [guided_settings.pairs_at_once(images) for images in (1, 5, 8)] == [1, 2, 4]


def test_large_images_come_in_chunks_of_fewer_that_are_told_apart(
    local_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chunk_size((1, 8, 8)) == chunk_size((3, 32, 32)) == CHUNK
    for shape, pixels in ((4, 64, 64), 2**14), ((16, 128, 128), 2**18):
        assert chunk_size(shape) * 2 * 4 * pixels == CHUNK_BYTES
    assert chunk_size((3, 2048, 2048)) == 1
    host = local_host()
    made(host, pairs=8)
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 2 * 4 * 2)
    assert len(made(host, pairs=8).chunks) == 8
    assert len(kept(host)) == 1 + 2


@pytest.mark.usefixtures("small_chunks")
def test_it_shows_life_at_every_step_and_not_too_often(local_host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = [local_host(), local_host()]
    made(hosts[0], pairs=32, batch_size=4)
    assert hosts[0].phases == [], "that took no time"
    monkeypatch.setattr(progress, "SIGN_SECONDS", 0.0)
    made(hosts[1], pairs=32, batch_size=4)
    assert hosts[1].phases == ["training"] * (2 * 4 * SETTINGS.pair_steps + 2)


class Ranks:
    """Two workers that share files and a user, and wait for each other where a call is collective."""

    def __init__(self, local_host: Any, stop_after: int | None = None) -> None:
        self.stop_after, self.looks = stop_after, [0, 0]
        self._wait = threading.Barrier(2, timeout=20)
        self.hosts = [local_host(rank=rank, world_size=2) for rank in range(2)]
        for rank, host in enumerate(self.hosts):
            host.files = self.hosts[0].files
            host.wish = lambda rank=rank: self._wish(rank)

    def _wish(self, rank: int) -> Wish:
        self.looks[rank] += 1
        self._wait.wait()
        return Wish.PAUSE if self.stop_after is not None and self.looks[rank] > self.stop_after else Wish.RUN

    def make(self, **changes: Any) -> list[PairSource | Wish]:
        found: dict[int, PairSource | Wish] = {}
        settings = SETTINGS.model_copy(update=changes)

        def work(rank: int) -> None:
            found[rank] = make_pairs(six_modes(), settings, self.hosts[rank], seed=1, identity="six")

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [found[rank] for rank in range(2)]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("pairs_of", [64, 40, 24, 10])
def test_two_workers_make_what_one_makes(pairs_of: int, local_host: Any) -> None:
    """Also where there are not two whole chunks left for them."""
    alone = whole(local_host, pairs=pairs_of, batch_size=8)
    both = Ranks(local_host)
    for source in both.make(pairs=pairs_of, batch_size=8):
        assert isinstance(source, PairSource)
        torch.testing.assert_close(rows(source), alone, **CLOSE)
    assert both.looks[0] == both.looks[1]


@pytest.mark.usefixtures("small_chunks")
def test_a_worker_that_only_waits_shows_life(local_host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one alone is heard, and has nothing to make where its chunks are there already."""
    monkeypatch.setattr(progress, "SIGN_SECONDS", 0.0)
    both = Ranks(local_host)
    first = local_host()
    first.files = both.hosts[0].files
    made(first, pairs=16)
    assert len(kept(first)) == 1
    both.make(pairs=32, batch_size=8)
    assert both.hosts[0].phases == ["training"] * (4 * SETTINGS.pair_steps + 2)


@pytest.mark.usefixtures("small_chunks")
def test_all_workers_stop_within_a_chunk(local_host: Any) -> None:
    per_chunk = 4 * SETTINGS.pair_steps  # parts of four
    both = Ranks(local_host, stop_after=per_chunk + 2)
    assert both.make(pairs=64, batch_size=8) == [Wish.PAUSE, Wish.PAUSE]
    assert both.looks == [per_chunk + 3] * 2
    assert len(kept(both.hosts[0])) == 2, "a chunk that is begun is not kept"
    both.stop_after = None
    (source, _) = both.make(pairs=64, batch_size=8)
    assert isinstance(source, PairSource)
    torch.testing.assert_close(rows(source), whole(local_host, pairs=64, batch_size=8), **CLOSE)


def test_making_stops_when_asked_and_goes_on_later(local_host: Any) -> None:
    host = local_host()
    host.stop_at = 0
    assert make_pairs(six_modes(), SETTINGS, host, seed=1, identity="six") is Wish.PAUSE
    assert not kept(host)
    host.stop_at = None
    assert torch.equal(rows(made(host))["images"], whole(local_host)["images"])


@pytest.mark.usefixtures("small_chunks")
def test_killed_while_making_them_it_goes_on_with_the_next_chunk(
    local_host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, calls, teacher = local_host(), 4 * 2 * SETTINGS.pair_steps, six_modes()

    def kill(before: int) -> None:
        if before == calls + 3:
            raise Killed

    with monkeypatch.context() as patch:
        watch(teacher, patch, kill)
        with pytest.raises(Killed):
            made(host, teacher=teacher, pairs=48, batch_size=4)
    assert len(kept(host)) == 1
    seen = watch(teacher, monkeypatch)
    source = made(host, teacher=teacher, pairs=48, batch_size=4)
    assert len(seen) == 2 * calls
    assert torch.equal(rows(source)["images"], whole(local_host, pairs=48, batch_size=4)["images"])
