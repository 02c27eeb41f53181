"""Pairs of noise and what the teacher makes of it: exact, kept, shared, and stopped when asked."""

from typing import Any

import torch
from torch import Tensor

from service.methods.base import PairSettings
from service.status import Wish
from workers.data.source import ImageSource
from workers.diffusion.solver import solve
from workers.diffusion.timesteps import even_grid
from workers.models.mixture import MixtureDenoiser, six_modes
from workers.pairs import CHUNK, make_pairs, pairs
from workers.randomness import BatchRng

SETTINGS = PairSettings(kind="kd", pairs=2 * CHUNK + 8, pair_steps=4)


def made(host: Any, identity: str = "six") -> ImageSource:
    found = make_pairs(six_modes(), SETTINGS, host, seed=1, identity=identity)
    assert isinstance(found, ImageSource)
    return found


def test_every_chunk_is_a_sign_of_progress(local_host: Any) -> None:
    host = local_host()
    made(host)
    assert host.phases == ["training"] * 3


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
    first = made(host)
    assert first.noise is not None
    assert len(first.images) == len(first.noise) == SETTINGS.pairs
    kept: dict[str, dict[str, Tensor]] = dict(host.tensors)
    assert len(kept) == 3
    assert torch.equal(made(host).images, first.images)
    assert host.tensors.keys() == kept.keys(), "nothing was made again"
    made(host, identity="another teacher")
    assert len(host.tensors) == 6
    batch = first.batch(BatchRng(0, batch_size=16))
    for image, noise in zip(batch.images, batch.noise if batch.noise is not None else [], strict=True):
        place = int((first.images == image).all(1).nonzero()[0])
        assert torch.equal(first.noise[place], noise)


def test_two_workers_make_what_one_makes(local_host: Any) -> None:
    one, shared = made(local_host()), local_host(rank=1, world_size=2)
    made(shared)
    other = local_host(rank=0, world_size=2)
    other.tensors = shared.tensors
    assert torch.equal(made(other).images, one.images)


def test_making_stops_when_asked_and_goes_on_later(local_host: Any) -> None:
    host = local_host()
    host.stop_at = 0
    assert make_pairs(six_modes(), SETTINGS, host, seed=1, identity="six") is Wish.PAUSE
    assert not host.tensors
    host.stop_at = None
    assert torch.equal(made(host).images, made(local_host()).images)
