"""What the training core reaches on one GPU, without Ray: speed, memory, and the share of the device's arithmetic.

`python tests/bench/bench_core.py [--job NAME]`, all jobs of core_jobs.py without. The trainer takes its steps as in a
job, on images in memory, without previews; a step's time is the median after the first two. Each job is run as it is
and with its networks compiled, always with the channels innermost. Beside the measured peak of the memory and the
counted arithmetic stands what service/memory.py says of the same job beforehand. Counted is what is really run, also
what is run again in the backward pass; the share of the device's peak is of that, in dense bf16.

With `--tiny` the same script runs tiny networks of the same architecture, on a CPU where there is no GPU; there nothing
is compiled, and the peak is that of the tensors.
"""

import argparse
import gc
import sys
import time
import traceback
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from bare import BareHost
from core_jobs import JOBS, Job, Teacher
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from service import memory
from service.memory import Costs, Memory
from service.spec import JobSpec
from workers import stages
from workers.compute import hasten, lay_out
from workers.data.source import ImageSource
from workers.state import State
from workers.trainer import Cadence, Trainer

sys.path.append(str(Path(__file__).parents[1] / "memory"))
from peak import Peak

WARM_UP = 2
STEPS = 8
NEVER = 1_000_000
IMAGES = 16
PEAKS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H200": 989,
    "A100": 312,
    "L40S": 362,
    "RTX 4090": 165,
}
"""Dense bf16 TFLOPS by the makers' data sheets; the first part of a device's name that is found counts."""


@dataclass(frozen=True)
class Measured:
    """Seconds of a step, and until the first one was done; bytes at the peak."""

    step: float
    first: float
    peak: int


@dataclass(frozen=True)
class Estimate:
    """What is known of a job beforehand."""

    memory: Memory
    flops: int


class DeviceHost(BareHost):
    """On a device; notes when each step is really over there."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def train(teacher: Teacher, spec: JobSpec, device: torch.device) -> list[float]:
    """All steps of the job, as `stages.train` takes them. Returns when it started, and when each step ended."""
    lay_out(teacher.denoiser, spec.compute)
    method = stages.build(spec.chain()[0].method, teacher.denoiser)
    for module in (method.teacher, *method.trainable.values()):
        module.to(device)
    hasten([method.teacher, *method.trainable.values(), *method.followers.values()], spec.compute)
    source = None
    if method.data_need == "images":
        labels = None if teacher.denoiser.num_classes is None else torch.zeros(IMAGES, dtype=torch.long)
        source = ImageSource(torch.randn(IMAGES, *teacher.denoiser.shape), labels)
    host = DeviceHost(device)
    started = time.perf_counter()
    Trainer(method, source, host, State(), Cadence(NEVER, NEVER), seed=0, compute=spec.compute).run()
    return [started, *host.times]


class Arithmetic(TorchDispatchMode):
    """Counts operations, a multiply-add twice. Torch's FlopCounterMode keeps what blocks that run again have made."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def count(job: Job, tiny: bool, device: torch.device) -> float:
    """Operations of one step; nothing is compiled for it, where they would not be seen, as in a CPU's attention."""
    seen = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    with seen, Arithmetic() as arithmetic:
        train(job.teacher(tiny, device), job.spec(tiny, 1, compiled=False), device)
    return arithmetic.flops


def measure(job: Job, tiny: bool, device: torch.device, compiled: bool, steps: int) -> Measured:
    """On a CPU, where no allocator counts, the peak is of a second run, which the counting slows."""
    spec = job.spec(tiny, WARM_UP + steps, compiled)
    teacher = job.teacher(tiny, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started, *ends = train(teacher, spec, device)
    if device.type == "cuda":
        highest = torch.cuda.max_memory_allocated()
    else:
        teacher = job.teacher(tiny, device)
        with Peak([teacher.denoiser]) as peak:
            train(teacher, job.spec(tiny, WARM_UP, compiled), device)
        highest = peak.highest
    return Measured(median(b - a for a, b in pairwise(ends[WARM_UP - 1 :])), ends[0] - started, highest)


def estimate(job: Job, tiny: bool) -> Estimate:
    """By the shapes alone: nothing is allocated for it."""
    teacher, spec = job.teacher(tiny, torch.device("meta")), job.spec(tiny, STEPS, compiled=False)
    costs = Costs(teacher.parameters, teacher.footprint, teacher.denoiser.num_classes)
    return Estimate(memory.phases(spec, costs)["training"], memory.flops(spec, costs))


def rows(job: Job, tiny: bool, device: torch.device, variants: list[bool], steps: int) -> Table:
    """A line for each variant."""
    known, counted = estimate(job, tiny), count(job, tiny, device)
    _free(device)
    out = Table("COMPILED", "MS A STEP", "IMAGES/S", "FIRST STEP", box=None, header_style="bold", pad_edge=False)
    for column in ("PEAK", "ESTIMATED", "ARITHMETIC", "ESTIMATED", "OF THE DEVICE'S"):
        out.add_column(column)
    for compiled in variants:
        run = measure(job, tiny, device, compiled, steps)
        _free(device)
        top = peak_flops(device)
        out.add_row(
            "yes" if compiled else "no",
            f"{1e3 * run.step:.1f}",
            f"{job.spec(tiny, steps, compiled).chain()[0].method.batch_size / run.step:.2f}",
            f"{run.first:.1f} s",
            f"{amount(run.peak)}B",
            f"{amount(known.memory.total)}B, {known.memory.total / run.peak - 1:+.0%}",
            f"{amount(counted)}FLOP",
            f"{amount(known.flops)}FLOP, {known.flops / counted - 1:+.0%}",
            "–" if top is None else f"{counted / run.step / top:.1%}",
        )
    return out


def peak_flops(device: torch.device) -> float | None:
    """Operations a second in dense bf16; None where they are not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name()
    return next((1e12 * tflops for part, tflops in PEAKS.items() if part in name), None)


def amount(value: float) -> str:
    """Three digits, and the letter of the unit: 12.3 G."""
    for letter, unit in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= unit:
            return f"{value / unit:.3g} {letter}"
    return f"{value / 1e3:.3g} k"


def _free(device: torch.device) -> None:
    """Of what the last run left."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def title(name: str, job: Job, tiny: bool, device: torch.device) -> str:
    """Of a job's table."""
    method = job.spec(tiny, STEPS, compiled=False).chain()[0].method
    parts = f" in {method.micro_batches} parts" if method.micro_batches > 1 else ""
    million = job.teacher(tiny, torch.device("meta")).parameters / 1e6
    again = ", blocks run again" if job.compute.get("activation_checkpointing") else ""
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return f"{name}, {million:.4g} million parameters, batch of {method.batch_size}{parts}, bf16{again}, {where}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", action="append", choices=list(JOBS), help="only this one; may be repeated")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, on a CPU where there is no GPU")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"timed steps of each run, {STEPS} without")
    parser.add_argument("--no-compile", action="store_true", help="leave out the runs that are compiled")
    asked = parser.parse_args()
    gpu = torch.cuda.is_available()
    if not gpu and not asked.tiny:
        print("torch finds no GPU here, which the published networks need: run with --tiny on a CPU.", file=sys.stderr)
        return 2
    device = torch.device("cuda" if gpu else "cpu")
    variants = [False, True] if gpu and not asked.no_compile else [False]
    console, failed = Console(width=None if sys.stdout.isatty() else 160), 0
    for name in asked.job or JOBS:
        console.print(title(name, JOBS[name], asked.tiny, device))
        try:
            console.print(rows(JOBS[name], asked.tiny, device, variants, asked.steps), end="\n\n")
        except Exception:
            traceback.print_exc()  # the other jobs can still be measured
            failed = 1
            _free(device)
    return failed


if __name__ == "__main__":
    sys.exit(main())
