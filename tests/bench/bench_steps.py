"""What the training core costs each method: a step of the trainer against a bare loop of the same losses.

`python tests/bench/bench_steps.py [KIND ...]`, all methods without. The bare loop draws a batch, takes the method's
losses, their gradients and a step of Adam, and does nothing else: no average of the weights, no clipping, no check of
the numbers, no figures, no followers. Trainer and loop take the same steps in turn, on one core. The last column sets
the trainer's step against the method's documented passes through the network, timed alone on the same batch.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import torch
from bare import BareHost
from rich.console import Console

from api.render import table
from service.methods import METHODS
from service.methods.base import MethodSettings, PairSettings
from service.status import Wish
from workers import stages
from workers.data.source import Source
from workers.methods.base import Method
from workers.models.denoiser import Denoiser
from workers.models.unet2d import load_teacher
from workers.optim import make_optimizer
from workers.randomness import BatchRng
from workers.state import State
from workers.store import local_folder
from workers.trainer import Cadence, Trainer

STEPS = 10
ROUNDS = 3
NEVER = 1_000_000


class StepHost(BareHost):
    """Stops the trainer after so many steps, and notes when each ended."""

    def wish(self) -> Wish:
        return Wish.CANCEL if len(self.times) > STEPS else Wish.RUN

    def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
        self.times.append(time.perf_counter())


def with_trainer(method: Method, images: Source | None) -> float:
    """Seconds per step; the first one is not counted."""
    host = StepHost()
    Trainer(method, images, host, State(), Cadence(NEVER, NEVER), seed=0).run()
    return (host.times[-1] - host.times[0]) / (len(host.times) - 1)


def bare(method: Method, images: Source | None) -> float:
    """Seconds per step of the same steps as `with_trainer`, the first one not counted."""
    optimizers = {r: make_optimizer(m, method.learning_rate(r), method.betas) for r, m in method.trainable.items()}
    started = 0.0
    for step in range(STEPS + 1):
        for turn, role in enumerate(method.turns(step)):
            for name, module in method.trainable.items():
                module.requires_grad_(name == role)
            optimizers[role].zero_grad()
            rng = BatchRng(0, 0, step, turn, batch_size=method.settings.batch_size)
            method.loss(role, None if images is None else images.batch(rng), 0, rng).loss.backward()
            optimizers[role].step()
        if step == 0:
            started = time.perf_counter()
    return (time.perf_counter() - started) / STEPS


def passes(teacher: Denoiser, batch_size: int) -> tuple[float, float]:
    """Seconds of a forward and of a backward through the network."""
    network = teacher.trainable_copy()
    x, level = torch.randn(batch_size, *teacher.shape), torch.full((batch_size,), 0.5)
    labels = torch.zeros(batch_size, dtype=torch.long)
    forward: list[float] = []
    backward: list[float] = []
    for _ in range(STEPS):
        started = time.perf_counter()
        output = network.raw(x, level, labels)
        between = time.perf_counter()
        output.square().mean().backward()
        forward.append(between - started)
        backward.append(time.perf_counter() - between)
    return min(forward), min(backward)


def quick(kind: str) -> MethodSettings:
    """The method's defaults, but for what it prepares beforehand."""
    settings = METHODS[kind]
    if issubclass(settings, PairSettings):
        return settings(pairs=settings.model_fields["batch_size"].default, pair_steps=1)
    return settings()


def rows(kinds: list[str]) -> Iterator[list[str]]:
    teacher, keeper = load_teacher(local_folder("builtin:digits")), BareHost()
    for kind in kinds:
        settings = quick(kind)

        def fresh(settings: MethodSettings = settings) -> tuple[Method, Source | None]:
            method = stages.build(settings, teacher)
            images = stages.data_source(method, keeper, 0, "")
            assert not isinstance(images, Wish)
            return method, images

        runs: list[Callable[[Method, Source | None], float]] = [with_trainer, bare]
        times = [[run(*fresh()) for run in runs] for _ in range(ROUNDS)]
        step, loop = (min(column) for column in zip(*times, strict=True))
        forward, backward = passes(teacher, settings.batch_size)
        networks = settings.forwards * forward + settings.backwards * backward
        yield [kind, f"{1e3 * step:.1f}", f"{1e3 * loop:.1f}", f"{step / loop:.2f}", f"{step / networks:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(METHODS), metavar="KIND")
    torch.set_num_threads(1)
    out = table("METHOD", "STEP, MS", "BARE, MS", "STEP ÷ BARE", "STEP ÷ PASSES")
    for row in rows(parser.parse_args().kinds):
        out.add_row(*row)
    Console().print("What the training core costs a step, digits teacher, one core", out, sep="\n")


if __name__ == "__main__":
    main()
