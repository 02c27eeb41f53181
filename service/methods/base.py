"""What the settings of all distillation methods share."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Family = Literal["fidelity", "trajectory", "adversarial"]
DataNeed = Literal["none", "images", "pairs"]
"""Pairs are noises and what the teacher makes of them; a stage of its own makes and keeps them."""


class MethodSettings(BaseModel):
    """What all methods share. Subclasses add a literal `kind` and their own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    title: ClassVar[str]
    family: ClassVar[Family]
    paper: ClassVar[str]
    data_need: ClassVar[DataNeed]
    summary: ClassVar[str]
    known_limit: ClassVar[str] = ""
    "What the method is known to be poor at, in one sentence, for the tables."
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


class PairSettings(MethodSettings):
    """Of a method that learns from the teacher's own (noise, image) pairs."""

    data_need: ClassVar[DataNeed] = "pairs"

    pairs: int = Field(4096, ge=1, le=100_000_000, description="Pairs that the teacher makes before training starts.")
    pair_steps: int = Field(16, ge=1, le=1000, description="Steps of the teacher's second-order solver for each pair.")


class GeneratorSettings(MethodSettings):
    """Of a method that judges what the student makes of noise."""

    data_need: ClassVar[DataNeed] = "none"
    networks: ClassVar[int] = 3
    trained_networks: ClassVar[int] = 1

    steps: int = Field(
        1,
        ge=1,
        le=8,
        description="Sampling steps of the student; above 1 it is trained by backward simulation.",
    )
    learning_rate: float = Field(5e-4, gt=0, le=1, description="Peak learning rate of the student's optimizer.")
    iterations: int = Field(320, ge=1, le=10_000_000, description="Optimizer steps of the student.")

    def total_steps(self) -> int:
        return self.iterations

    def student_steps(self) -> list[list[int]]:
        """One student; a 4-step one also samples in 2 steps, whose times are every other of the four."""
        steps = [self.steps]
        while steps[-1] % 2 == 0 and steps[-1] > 2:
            steps.append(steps[-1] // 2)
        return [steps]


class ScoreSettings(GeneratorSettings):
    """Of a method that follows the difference of two scores."""

    networks: ClassVar[int] = 4
    trained_networks: ClassVar[int] = 2

    fake_updates: int = Field(3, ge=1, le=100, description="Updates of the fake score per update of the student.")
    fake_learning_rate: float = Field(2e-3, gt=0, le=1, description="Learning rate of the fake score.")


class CriticSettings(BaseModel):
    """Mixin of a method with an adversarial term."""

    gan_loss: Literal["non_saturating", "hinge"] = Field(
        "non_saturating", description="What the critic descends, and what the student descends in answer."
    )
    r1: Literal["exact", "approximate"] = Field(
        "approximate",
        description="How the critic's slope at real images is measured: by a second derivative, or by a small noise.",
    )
    r1_weight: float = Field(0.0, ge=0, le=10_000, description="Weight of the penalty on that slope; 0 is off.")


class NoisedCriticSettings(CriticSettings):
    """Mixin of a method whose critic has noise levels of its own."""

    critic_noise: Literal["fixed", "adaptive"] = Field(
        "fixed", description="Whether the noisiest images the critic sees stay as they are, or follow how sure it is."
    )
    critic_noise_max: float = Field(0.98, gt=0.02, le=1, description="Time of the noisiest images the critic sees.")


class FlowMapSettings(MethodSettings):
    """Of a method whose student is told where its step leads to."""

    networks: ClassVar[int] = 4
    trained_networks: ClassVar[int] = 1

    iterations: int = Field(800, ge=1, le=10_000_000, description="Optimizer steps.")

    def total_steps(self) -> int:
        return self.iterations

    def student_steps(self) -> list[list[int]]:
        """Three students of the same weights; the last of them is the start of a next stage."""
        return [[4], [2], [1]]
