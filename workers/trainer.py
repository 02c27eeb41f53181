"""The training loop: report, checkpoint, done?, gradients, optimizer, averages. It knows no method by name."""

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from service.spec import Compute
from service.status import Reason, Wish
from workers.data.source import Source
from workers.diffusion.ema import copy_weights, ema_update
from workers.host import Host
from workers.live import collect, restore
from workers.methods.base import LossOut, Method
from workers.models.denoiser import Denoiser
from workers.optim import (
    average_over_workers,
    clip_gradients,
    make_optimizer,
    schedule,
    set_learning_rate,
)
from workers.precision import LossScale
from workers.preview import Preview
from workers.randomness import BatchRng
from workers.rows import own
from workers.shard import assembled, outline, reshard, shard
from workers.state import Finished, State, write

PLAIN = Compute()
LARGEST_SAMPLE = 10.0
"""Root mean square of a student's pixels; images, and latents as networks see them, are about 1."""


class Diverged(ArithmeticError):
    """A loss or a gradient is NaN or infinite, or the samples are of no use any more and on their way there."""

    reason = Reason.DIVERGED

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"step {step}: {what}; lower learning_rate and submit again")
        self.step, self.what = step, what


@dataclass(frozen=True)
class Cadence:
    """When things happen, in steps counted over all stages; `first_step` is how many the stages before took."""

    checkpoint_every: int
    preview_every: int
    first_step: int = 0


class Trainer:
    """Runs one stage from where `state` stands to its end, or to the step at which it is asked to stop.

    Args:
        images: what batches are drawn from; None where the method's `data_need` is none.
        state: changed in place; after `run` it is the state that a checkpoint would hold.
        preview: draws sample grids; None draws none.
        compute: how the networks are held and run; they are prepared for it already, but not split between workers.
    """

    def __init__(
        self,
        method: Method[Any],
        images: Source | None,
        host: Host,
        state: State,
        cadence: Cadence,
        seed: int,
        preview: Preview | None = None,
        compute: Compute = PLAIN,
    ) -> None:
        self.method, self.images, self.host, self.state = method, images, host, state
        self.cadence, self.seed, self.preview = cadence, seed, preview
        self.settings = method.settings
        self.average = method.student.frozen_copy()
        half = compute.precision == "fp16"
        self.scales = {role: LossScale().to(host.device) for role in method.trainable} if half else {}
        self.split = compute.strategy == "fsdp" and host.world_size > 1
        if self.split:
            self.outline = outline(self.average)
            shard(self._held(), host.device)
        self.optimizers = {role: self._optimizer(role) for role in method.trainable}
        self.segments = method.segments()
        self.steps = sum(self.segments)
        if state.live:
            restore(state.live, self._modules(), self.optimizers)
            state.live = {}

    def run(self) -> Wish | None:
        """The wish that stopped it, or None when all steps are done."""
        saved = self.state.step
        values: dict[str, float] | None = None
        while True:
            self._report(values)
            done = self.state.step == self.steps
            wish = Wish.RUN if done else self.host.wish()
            due = done or wish is not Wish.RUN or self._now % self.cadence.checkpoint_every == 0
            if due and self.state.step != saved:
                self._checkpoint()
                saved = self.state.step
            if done or wish is not Wish.RUN:
                return None if done else wish
            values = self._step()

    @property
    def _now(self) -> int:
        """Steps done, over all stages."""
        return self.cadence.first_step + self.state.step

    def _segment(self, step: int) -> tuple[int, int]:
        """The segment that `step` is in, and its position there."""
        segment = 0
        while step >= self.segments[segment]:
            step -= self.segments[segment]
            segment += 1
        return segment, step

    def _step(self) -> dict[str, float]:
        started = time.monotonic()
        segment, position = self._segment(self.state.step)
        values: dict[str, Tensor] = {}
        for turn, role in enumerate(self.method.turns(self.state.step)):
            prefix = "" if role == "student" else f"{role}_"
            rate = self.method.learning_rate(role) * schedule(position, self.segments[segment])
            out, norm = self._turn(turn, role, rate, segment)
            values |= {f"{prefix}loss": out.loss.detach(), f"{prefix}grad_norm": norm, **out.logs}
            if role == "student":
                values["learning_rate"] = torch.tensor(rate)
        for role in self.method.trainable.keys() - {"student"}:
            if f"{role}_loss" in values:
                values[f"{role}_to_student_loss"] = values[f"{role}_loss"] / values["loss"].abs().clamp(min=1e-12)
        self._settle()
        ema_update(self.average, self.method.student, self.settings.ema_decay)
        self.method.after_step()
        self.state.step += 1
        if position + 1 == self.segments[segment]:
            self._finish(segment, time.monotonic() - started)

        named = dict(zip(values, self._mean(list(values.values())), strict=True))
        if self.scales:
            named = {name: value for name, value in named.items() if math.isfinite(value)}  # of a skipped step
        seconds = time.monotonic() - started
        self.state.training_seconds += seconds
        return named | {"images_per_second": self.settings.batch_size / seconds}

    def _turn(self, turn: int, role: str, rate: float, segment: int) -> tuple[LossOut, Tensor]:
        """One update of one role; gradients are means over micro-batches and workers."""
        for name, module in self.method.trainable.items():
            module.requires_grad_(name == role)
        optimizer, module = self.optimizers[role], self.method.trainable[role]
        optimizer.zero_grad()
        scaling = self.scales.get(role)
        scale = 1.0 if scaling is None else float(scaling.scale)
        parts = self.settings.micro_batches
        for part in range(parts):
            rng = BatchRng(
                self.seed,
                self.state.stage,
                self.state.step,
                turn,
                batch_size=self.settings.batch_size,
                share=self.host.rank * parts + part,
                shares=self.host.world_size * parts,
                device=self.host.device,
            )
            batch = None if self.images is None else self.images.batch(rng)
            out = self.method.loss(role, batch, segment, rng)
            (out.loss * (scale / parts)).backward()
        self._settle()
        average_over_workers(parameter.grad for parameter in module.parameters())
        norm = clip_gradients(module, self.settings.max_grad_norm, scale)
        finite = bool(torch.isfinite(norm))
        if scaling is not None and scaling.accepts(finite) and not finite:
            return out, norm
        if not finite or not bool(torch.isfinite(out.loss)):
            raise Diverged(self._now + 1, self._culprit(role, out.loss))
        set_learning_rate(optimizer, rate)
        optimizer.step()
        return out, norm

    def _settle(self) -> None:
        """After a pass: every worker holds its own rows again, and no others."""
        if self.split:
            reshard(self._held())

    def _culprit(self, role: str, loss: Tensor) -> str:
        if not bool(torch.isfinite(loss)):
            return f"the loss of the {role} is not finite"
        for name, parameter in self.method.trainable[role].named_parameters():
            if parameter.grad is not None and not bool(torch.isfinite(own(parameter.grad)).all()):
                return f"the gradient of {name} of the {role} is not finite"
        return f"the gradient norm of the {role} is not finite"

    def _mean(self, scalars: list[Tensor]) -> list[float]:
        stacked = torch.stack([scalar.detach().float().to(self.host.device) for scalar in scalars])
        average_over_workers([stacked])
        return stacked.tolist()

    def _finish(self, segment: int, seconds: float) -> None:
        """Set the segment's students aside, in the machine's memory; the next segment starts with fresh optimizers."""
        kind: str = self.settings.kind
        for sampler, network in self.method.students(segment, self._whole_average()):
            label = f"{kind}-{sampler.steps[0]}"
            if any(student.label == label for student in self.state.finished):
                label = f"{label}-stage-{self.state.stage}"
            self.state.finished.append(
                Finished(
                    label=label,
                    method=kind,
                    stage=self.state.stage,
                    sampler=sampler,
                    training_seconds=self.state.training_seconds + seconds,
                    weights={name: tensor.to("cpu", copy=True) for name, tensor in network.state_dict().items()},
                )
            )
        if segment + 1 < len(self.segments):
            copy_weights(self.method.student, self.average)
            self.method.next_segment()
            self.optimizers = {role: self._optimizer(role) for role in self.method.trainable}

    def _optimizer(self, role: str) -> torch.optim.Adam:
        return make_optimizer(self.method.trainable[role], self.method.learning_rate(role), self.method.betas)

    def _report(self, values: dict[str, float] | None) -> None:
        seen: dict[str, float] = {}
        done = self.state.step == self.steps
        due = done or self._now % self.cadence.preview_every == 0
        if self.preview and due and (self.split or self.host.rank == 0):
            segment, _ = self._segment(max(0, self.state.step - 1))
            average = self._whole_average()
            if self.host.rank == 0:
                sampler, student = self.method.students(segment, average.to(self.host.device))[0]
                seen = self.preview.student(student, sampler, self._now, self.state.stage)
        if values is not None:
            self.host.metrics(self._now, self.state.stage, values | seen)
        if (size := seen.get("sample_size", 0.0)) > LARGEST_SAMPLE:
            raise Diverged(self._now, f"the student's samples have grown to {size:.3g}, where images are about 1")

    def _checkpoint(self) -> None:
        self.state.live = collect(self._modules(), self.optimizers)
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as folder:
            write(self.state, Path(folder), self.host.rank)
            self.host.save_checkpoint(self._now, Path(folder))

    def _modules(self) -> dict[str, nn.Module]:
        """All that changes, by name."""
        scales = {f"scale-{role}": scale for role, scale in self.scales.items()}
        return self.method.trainable | self.method.followers | {"average": self.average} | scales

    def _held(self) -> list[nn.Module]:
        """All that this worker holds."""
        return [*self._modules().values(), self.method.teacher]

    def _whole_average(self) -> Denoiser:
        """Collective where it is split: then a copy on the CPU, else the average itself."""
        return assembled(self.outline, self.average) if self.split else self.average
