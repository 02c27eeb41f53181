"""The settings of every distillation method: what a user may write under `method`, with tested defaults.

Adding a method is one class here, one file in `workers/methods/` and one line in each registry.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Family = Literal["fidelity", "trajectory", "adversarial"]
DataNeed = Literal["none", "images"]


class MethodSettings(BaseModel):
    """What all methods share. Subclasses add a literal `kind` and their own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    title: ClassVar[str]
    family: ClassVar[Family]
    paper: ClassVar[str]
    data_need: ClassVar[DataNeed]
    summary: ClassVar[str]
    networks: ClassVar[int]
    "How many networks of the teacher's size a worker holds: student, its EMA, teacher and the method's own."
    trained_networks: ClassVar[int]
    "How many of them have gradients and an optimizer."

    kind: str
    batch_size: int = Field(64, ge=1, le=65_536, description="Images per optimizer step, over all workers.")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Peak learning rate of the student's optimizer.")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="Decay of the averaged weights that are exported.")
    guidance_scale: float = Field(
        1.0, ge=0, le=100, description="Classifier-free guidance of the teacher, u + g(c - u); 1 is off."
    )

    max_grad_norm: float = Field(1.0, gt=0, le=1e6, description="Gradients are clipped to this norm, per role.")
    micro_batches: int = Field(
        1, ge=1, le=1024, description="Parts in which each worker runs its share of the batch, to save memory."
    )

    def total_steps(self) -> int:
        """Optimizer steps of the student over the whole stage."""
        raise NotImplementedError

    def student_steps(self) -> list[list[int]]:
        """The students that the stage leaves: for each, the sampling steps it is made for, its own first."""
        raise NotImplementedError


def is_power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


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


class ConsistencySettings(MethodSettings):
    """Points of one teacher trajectory share their end point: the student maps each of them there."""

    kind: Literal["consistency"] = "consistency"
    title: ClassVar[str] = "Consistency distillation"
    family: ClassVar[Family] = "trajectory"
    paper: ClassVar[str] = "arXiv:2303.01469"
    data_need: ClassVar[DataNeed] = "images"
    summary: ClassVar[str] = "Neighbouring points of a teacher trajectory are mapped to one clean image."
    networks: ClassVar[int] = 4
    trained_networks: ClassVar[int] = 1

    iterations: int = Field(1000, ge=1, le=10_000_000, description="Optimizer steps.")
    grid_steps: int = Field(32, ge=2, le=1000, description="Intervals of the time grid, N in the paper.")
    target_decay: float = Field(0.95, ge=0, lt=1, description="EMA decay of the target network, mu in the paper.")

    def total_steps(self) -> int:
        return self.iterations

    def student_steps(self) -> list[list[int]]:
        return [[1, 2, 4]]


class DMD2Settings(MethodSettings):
    """Match the student's distribution to the teacher's by the difference of two scores."""

    kind: Literal["dmd2"] = "dmd2"
    title: ClassVar[str] = "Distribution matching (DMD2)"
    family: ClassVar[Family] = "fidelity"
    paper: ClassVar[str] = "arXiv:2405.14867"
    data_need: ClassVar[DataNeed] = "none"
    summary: ClassVar[str] = "The student follows the teacher's score minus the score of its own samples."
    networks: ClassVar[int] = 4
    trained_networks: ClassVar[int] = 2

    steps: int = Field(
        1,
        ge=1,
        le=8,
        description="Sampling steps of the student; above 1 it is trained by backward simulation.",
    )
    learning_rate: float = Field(5e-4, gt=0, le=1, description="Peak learning rate of the student's optimizer.")
    iterations: int = Field(320, ge=1, le=10_000_000, description="Optimizer steps of the student.")
    fake_updates: int = Field(3, ge=1, le=100, description="Updates of the fake score per update of the student.")
    fake_learning_rate: float = Field(2e-3, gt=0, le=1, description="Learning rate of the fake score.")
    gan_weight: float = Field(0.0, ge=0, le=10, description="Weight of the adversarial term; 0 needs no images.")

    def total_steps(self) -> int:
        return self.iterations

    def student_steps(self) -> list[list[int]]:
        """One student; a 4-step one also samples in 2 steps, whose times are every other of the four."""
        steps = [self.steps]
        while steps[-1] % 2 == 0 and steps[-1] > 2:
            steps.append(steps[-1] // 2)
        return [steps]


Method = Annotated[
    ProgressiveSettings | ConsistencySettings | DMD2Settings,
    Field(discriminator="kind"),
]

METHODS: dict[str, type[MethodSettings]] = {
    "progressive": ProgressiveSettings,
    "consistency": ConsistencySettings,
    "dmd2": DMD2Settings,
}
