"""What a teacher makes of which noise: pairs for the methods that learn from them, made once and kept in the store.

They are made in chunks, each kept under what it depends on. So a run that is stopped goes on with the next chunk, two
jobs with one teacher share their pairs, and several workers make different chunks at the same time. A chunk goes
through the network in parts that are no larger than a training step's, and before each step of a part's solver all
workers look at the user's wish, as training does before each of its own.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from service.methods.base import PairSettings
from service.status import Wish
from workers.data.chunks import Chunks, Part, write_chunk
from workers.data.source import PairSource
from workers.diffusion.solver import solve
from workers.diffusion.timesteps import even_grid
from workers.host import Host
from workers.models.denoiser import Denoiser
from workers.progress import Life

CHUNK, CHUNK_BYTES = 512, 2**24
"""The most pairs of a chunk, and the most bytes of their noises and images: large ones come in chunks of fewer."""

FORMAT = 2
"""Raised with every change of what a chunk holds."""


def make_pairs(teacher: Denoiser, settings: PairSettings, host: Host, seed: int, identity: str) -> PairSource | Wish:
    """Collective. All pairs, or the wish that stopped their making.

    Args:
        teacher: guided, where the method's teacher is; whole on every worker.
        identity: of the teacher's weights and its guidance.
    """
    chunk, steps = chunk_size(teacher.shape), settings.pair_steps
    at_once = settings.pairs_at_once(settings.batch_size // (host.world_size * settings.micro_batches))
    sizes = [min(chunk, settings.pairs - start) for start in range(0, settings.pairs, chunk)]
    about = f"pairs v{FORMAT} teacher={identity} steps={steps} seed={seed} chunks={chunk}"
    life = Life(host)

    def kept(number: int, before_step: Callable[[], None]) -> Path:
        def write(file: Path) -> None:
            own_seed, first = (seed << 32) + number, number * chunk
            made = pairs(teacher, steps, sizes[number], own_seed, host.device, first, at_once, before_step)
            write_chunk(file, {"": Part(made, [])}, [])

        return host.cached_file(f"{about} chunk={number} size={sizes[number]}", write)

    for first in range(0, len(sizes), host.world_size):
        looks = Looks(host, life, steps * math.ceil(sizes[first] / at_once))
        try:
            if (mine := first + host.rank) < len(sizes):
                kept(mine, looks.take)
            looks.take_rest()
        except Stopped as stopped:
            return stopped.wish
        host.log("info", f"{sum(sizes[: first + host.world_size])} of {settings.pairs} pairs are made.")
    host.wish()  # nobody reads before all have written
    files = []
    for number in range(len(sizes)):
        life.sign()  # they may have to be fetched
        files.append(kept(number, life.sign))
    return PairSource(Chunks(files))


def chunk_size(shape: tuple[int, ...]) -> int:
    """Pairs of a chunk, for images of this shape."""
    return max(1, min(CHUNK, CHUNK_BYTES // (2 * torch.float32.itemsize * math.prod(shape))))


@torch.no_grad()
def pairs(
    teacher: Denoiser,
    steps: int,
    size: int,
    seed: int,
    device: torch.device | None = None,
    first: int = 0,
    at_once: int | None = None,
    before_step: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """`size` pairs on the CPU: "noise" and "images" [size, ...], and "labels" [size], each class equally often.

    Args:
        first: the number of the first pair; labels go round with it.
        at_once: pairs that the teacher is asked for at once, by default all; it changes nothing but rounding.
        before_step: called before every step of the solver.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(size, *teacher.shape, generator=generator)
    found = {"noise": noise}
    if teacher.num_classes is not None:
        found["labels"] = torch.arange(first, first + size) % teacher.num_classes
    grid = even_grid(steps, teacher.path.t_max)

    def images(start: int) -> Tensor:
        part = {name: rows[start : start + (at_once or size)].to(device) for name, rows in found.items()}

        def predict(x: Tensor, t: Tensor) -> Tensor:
            return teacher.predict(x, t, part.get("labels"))

        x = part["noise"] * float(teacher.path.sigma(grid[0]))
        for step in range(steps):
            before_step()
            x = solve(predict, x, grid[step : step + 2], teacher.path, "dpm2")
        return x.cpu()

    return found | {"images": torch.cat([images(start) for start in range(0, size, at_once or size)])}


class Stopped(Exception):
    """The user wants something else than that the job runs."""

    def __init__(self, wish: Wish) -> None:
        super().__init__(wish)
        self.wish = wish


class Looks:
    """At the user's wish: `number` of them on every worker, whether it has pairs to make or only waits for others."""

    def __init__(self, host: Host, life: Life, number: int) -> None:
        self._host, self._life, self._left = host, life, number

    def take(self) -> None:
        """Collective. Raises Stopped."""
        self._left -= 1
        self._life.sign()
        if (wish := self._host.wish()) is not Wish.RUN:
            raise Stopped(wish)

    def take_rest(self) -> None:
        """Collective. Those that are left; raises Stopped."""
        while self._left:
            self.take()
