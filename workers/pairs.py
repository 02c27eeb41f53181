"""What a teacher makes of which noise: pairs for the methods that learn from them, made once and kept in the store.

They are made in chunks, each kept under what it depends on. So a run that is stopped goes on with the next chunk, two
jobs with one teacher share their pairs, and several workers make different chunks at the same time.
"""

import torch
from torch import Tensor

from service.methods.base import PairSettings
from service.status import Wish
from workers.data.source import ImageSource
from workers.diffusion.solver import solve
from workers.diffusion.timesteps import even_grid
from workers.host import Host
from workers.models.denoiser import Denoiser

CHUNK = 512


def make_pairs(teacher: Denoiser, settings: PairSettings, host: Host, seed: int, identity: str) -> ImageSource | Wish:
    """Collective. All pairs, or the wish that stopped their making.

    Args:
        teacher: guided, where the method's teacher is.
        identity: of the teacher's weights and its guidance.
    """
    sizes = [min(CHUNK, settings.pairs - start) for start in range(0, settings.pairs, CHUNK)]
    about = f"pairs teacher={identity} steps={settings.pair_steps} seed={seed}"
    for first in range(0, len(sizes), host.world_size):
        if (wish := host.wish()) is not Wish.RUN:
            return wish
        if (mine := first + host.rank) < len(sizes):
            _chunk(teacher, settings.pair_steps, host, about, seed, mine, sizes[mine])
        host.phase("training")  # a sign of progress, which a line of the log is not
        host.log("info", f"{sum(sizes[: first + host.world_size])} of {settings.pairs} pairs are made.")
    host.wish()  # nobody reads before all have written
    chunks = [_chunk(teacher, settings.pair_steps, host, about, seed, i, size) for i, size in enumerate(sizes)]
    whole = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
    return ImageSource(whole["images"], whole.get("labels"), whole["noise"])


def _chunk(
    teacher: Denoiser, steps: int, host: Host, about: str, seed: int, number: int, size: int
) -> dict[str, Tensor]:
    return host.cached_tensors(
        f"{about} chunk={number} size={size}",
        lambda: pairs(teacher, steps, size, (seed << 32) + number, host.device, number * CHUNK),
    )


@torch.no_grad()
def pairs(
    teacher: Denoiser, steps: int, size: int, seed: int, device: torch.device | None = None, first: int = 0
) -> dict[str, Tensor]:
    """`size` pairs on the CPU: "noise" and "images" [size, ...], and "labels" [size], each class equally often.

    Args:
        first: the number of the first pair; labels go round with it.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(size, *teacher.shape, generator=generator)
    labels = None
    if teacher.num_classes is not None:
        labels = torch.arange(first, first + size) % teacher.num_classes
    here = None if labels is None else labels.to(device)
    grid = even_grid(steps, teacher.path.t_max)
    start = noise.to(device) * float(teacher.path.sigma(grid[0]))
    images = solve(lambda x, t: teacher.predict(x, t, here), start, grid, teacher.path, "dpm2")
    return {"noise": noise, "images": images.cpu()} | ({} if labels is None else {"labels": labels})
