"""Settings of transitive closure time-distillation."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from service.methods.base import DataNeed, Family, MethodSettings


class TractSettings(MethodSettings):
    """Two phases, each from many steps to few: one student step learns a whole segment of its teacher's."""

    kind: Literal["tract"] = "tract"
    title: ClassVar[str] = "Transitive closure (TRACT)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2303.04248"
    data_need: ClassVar[DataNeed] = "images"
    summary: ClassVar[str] = "One step covers many teacher steps: the first by the teacher, the rest by the student."
    forwards: ClassVar[float] = 3.0
    backwards: ClassVar[float] = 1.0
    networks: ClassVar[int] = 5
    trained_networks: ClassVar[int] = 1

    teacher_steps: int = Field(32, ge=1, le=1000, description="Steps of the teacher in the first phase.")
    first_steps: int = Field(4, ge=1, le=1000, description="Steps of the first phase's student.")
    last_steps: int = Field(
        1, ge=1, le=1000, description="Steps of the last phase's student; as many as first_steps: there is one phase."
    )
    phase_iterations: int = Field(500, ge=1, le=10_000_000, description="Optimizer steps per phase.")
    self_teacher_decay: float = Field(
        0.5, ge=0, lt=1, description="EMA decay of the self-teacher; a slow one holds the student back."
    )

    @model_validator(mode="after")
    def whole_segments(self) -> "TractSettings":
        for many, few in (("teacher_steps", "first_steps"), ("first_steps", "last_steps")):
            if getattr(self, many) % getattr(self, few):
                raise ValueError(
                    f"{many} ({getattr(self, many)}) must be a multiple of {few} ({getattr(self, few)}), "
                    "since each step covers as many of its teacher's"
                )
        return self

    def phases(self) -> list[tuple[int, int]]:
        """Steps of the teacher and of the student, phase by phase."""
        first = (self.teacher_steps, self.first_steps)
        return [first] if self.first_steps == self.last_steps else [first, (self.first_steps, self.last_steps)]

    def total_steps(self) -> int:
        return self.phase_iterations * len(self.phases())

    def student_steps(self) -> list[list[int]]:
        return [[steps] for _, steps in self.phases()]
