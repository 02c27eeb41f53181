"""Settings of progressive distillation."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from service.methods.base import DataNeed, Family, MethodSettings


class ProgressiveSettings(MethodSettings):
    """Halve the sampler's steps, stage by stage: one student step learns two of its teacher's."""

    kind: Literal["progressive"] = "progressive"
    title: ClassVar[str] = "Progressive distillation"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2202.00512"
    data_need: ClassVar[DataNeed] = "images"
    summary: ClassVar[str] = "Each rung halves the steps: one student step lands where two teacher steps do."
    networks: ClassVar[int] = 3
    trained_networks: ClassVar[int] = 1

    first_steps: int = Field(8, ge=1, le=1024, description="Sampling steps of the first rung's student.")
    last_steps: int = Field(1, ge=1, le=1024, description="Sampling steps of the last rung's student.")
    rung_iterations: int = Field(
        240, ge=1, le=1_000_000, description="Optimizer steps per rung; the last two rungs take twice as many."
    )

    @model_validator(mode="after")
    def halving(self) -> "ProgressiveSettings":
        if self.first_steps % self.last_steps or not is_power_of_two(self.first_steps // self.last_steps):
            raise ValueError(
                f"first_steps ({self.first_steps}) must be last_steps ({self.last_steps}) times a power of two, "
                f"since every rung halves the steps; for example first_steps={self.last_steps * 4}"
            )
        return self

    def rungs(self) -> list[int]:
        """Student step counts, from the first rung to the last: 4, 2, 1."""
        rungs = [self.first_steps]
        while rungs[-1] > self.last_steps:
            rungs.append(rungs[-1] // 2)
        return rungs

    def rung_lengths(self) -> list[int]:
        """Optimizer steps of each rung: the longer the student's steps, the more it has to learn."""
        rungs = len(self.rungs())
        return [self.rung_iterations * (2 if rung >= rungs - 2 else 1) for rung in range(rungs)]

    def total_steps(self) -> int:
        return sum(self.rung_lengths())

    def student_steps(self) -> list[list[int]]:
        return [[n] for n in self.rungs()]


def is_power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0
