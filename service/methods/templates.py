"""What the settings of methods of one shape share: a class for each of the templates in `workers/templates/`."""

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from service.methods.base import DataNeed, FeatureSettings, MethodSettings, PairSettings, Passes


class StraightSettings(FeatureSettings, PairSettings):
    """Of a method that joins the noise and the image of a pair by a straight line."""

    networks: ClassVar[int] = 3
    trained_networks: ClassVar[int] = 1

    pair_steps: int = Field(8, ge=1, le=1000, description="Steps of the teacher's second-order solver for each pair.")
    times: Literal["u_shaped", "uniform"] = Field(
        "u_shaped", description="How the places along the line are drawn: both ends more often, or all alike."
    )
    iterations: int = Field(700, ge=1, le=10_000_000, description="Optimizer steps along the line.")

    def total_steps(self) -> int:
        return self.iterations

    def student_steps(self) -> list[list[int]]:
        return [[1, 2, 4]]


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

    def samples(self, images: int) -> int:
        """Every rollout leaves one at each of the student's steps."""
        return -(-images // self.steps) * self.steps

    def renoises(self) -> bool:
        return self.steps > 1

    def passes(self) -> Passes:
        return Passes(idle=1 if self.guidance_scale == 1 else 2)  # the teacher is asked after the student

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
    fake_lora_rank: int = Field(
        0,
        ge=0,
        le=1024,
        description="Rank of the low-rank updates of the teacher that the fake score is trained as, on the teacher's "
        "own weights; 0 trains a network of its own.",
    )

    def cost(self) -> tuple[float, float]:
        """The student's turn runs it through the steps before the one it learns at; each of the fake score's makes
        samples and learns from them."""
        more = self.fake_updates - type(self).model_fields["fake_updates"].default
        steps = (self.steps - 1) / self.steps
        return self.forwards + steps + 2 * more, self.backwards + more


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


class AdversarialScoreSettings(ScoreSettings, CriticSettings):
    """Of a method that follows the difference of two scores, with a critic on the features of one of them."""

    gan_weight: float = Field(0.0, ge=0, le=10, description="Weight of the adversarial term; 0 needs no images.")

    def data(self) -> DataNeed:
        return "images" if self.gan_weight > 0 else self.data_need

    def passes(self) -> Passes:
        """Of the fake score's turn: with a critic, its features of real, of fake and of nudged images as well."""
        if self.data() != "images":
            return super().passes()
        return Passes(trained=2.5 if self.r1_weight > 0 else 2.0)

    def cost(self) -> tuple[float, float]:
        """A critic looks at half a network: at the student's images, and at real, made and nudged ones in each of its
        own turns."""
        if self.data() != "images":
            return super().cost()
        forwards, backwards = super().cost()
        own = (1.5 if self.r1_weight > 0 else 1.0) * self.fake_updates
        known = 0.0 if self.data_need != "images" else 1.0 * type(self).model_fields["fake_updates"].default
        at_student = 0.5 if self.data_need != "images" else 0.0
        return forwards + own + at_student - known, backwards + own + at_student - known


class TrunkCriticSettings(BaseModel):
    """Mixin of a method whose critic is trained from the teacher on."""

    critic_lora_rank: int = Field(
        0,
        ge=0,
        le=1024,
        description="Rank of the low-rank updates of the teacher that the critic is trained as, on the teacher's own "
        "weights; 0 trains a network of its own.",
    )


class NoisedCriticSettings(CriticSettings):
    """Mixin of a method whose critic has noise levels of its own."""

    critic_noise: Literal["fixed", "adaptive"] = Field(
        "fixed", description="Whether the noisiest images the critic sees stay as they are, or follow how sure it is."
    )
    critic_noise_max: float = Field(0.98, gt=0.02, le=1, description="Time of the noisiest images the critic sees.")


class AdversarialSettings(MethodSettings, NoisedCriticSettings):
    """Of a method whose student learns from a critic above all."""

    data_need: ClassVar[DataNeed] = "images"
    networks: ClassVar[int] = 3
    trained_networks: ClassVar[int] = 1

    steps: int = Field(4, ge=1, le=8, description="Sampling steps of the student.")
    learning_rate: float = Field(5e-4, gt=0, le=1, description="Peak learning rate of the student's optimizer.")
    iterations: int = Field(1000, ge=1, le=10_000_000, description="Optimizer steps of the student.")
    critic_updates: int = Field(1, ge=1, le=100, description="Updates of the critic per update of the student.")
    critic_learning_rate: float = Field(2e-3, gt=0, le=1, description="Learning rate of the critic.")
    r1_weight: float = Field(0.05, ge=0, le=10_000, description="Weight of the penalty on the critic's slope, 0: off.")

    def renoises(self) -> bool:
        return self.steps > 1

    def passes(self) -> Passes:
        """Of the student's turn: through the critic's features."""
        return Passes(through=0.5)

    def total_steps(self) -> int:
        return self.iterations

    def student_steps(self) -> list[list[int]]:
        """One student: it is trained at each of its sampler's times, so any that divides its steps is one as well."""
        return [[n for n in range(self.steps, 0, -1) if self.steps % n == 0]]


class FlowMapSettings(MethodSettings):
    """Of a method whose student is told where its step leads to."""

    needs_own_network: ClassVar[bool] = True
    networks: ClassVar[int] = 4
    trained_networks: ClassVar[int] = 1

    iterations: int = Field(800, ge=1, le=10_000_000, description="Optimizer steps.")

    def total_steps(self) -> int:
        return self.iterations

    def student_steps(self) -> list[list[int]]:
        """Three students of the same weights; the last of them is the start of a next stage."""
        return [[4], [2], [1]]


class SelfConsistencySettings(MethodSettings):
    """Of a method whose student has one answer along a whole trajectory."""

    data_need: ClassVar[DataNeed] = "images"
    networks: ClassVar[int] = 3
    trained_networks: ClassVar[int] = 1

    iterations: int = Field(1000, ge=1, le=10_000_000, description="Optimizer steps.")

    def total_steps(self) -> int:
        return self.iterations

    def student_steps(self) -> list[list[int]]:
        return [[1, 2, 4]]


class AveragedTargetSettings(SelfConsistencySettings):
    """Of one whose target is an average of the student."""

    networks: ClassVar[int] = 4

    target_decay: float = Field(0.95, ge=0, lt=1, description="EMA decay of the target network, mu in the paper.")


class SharedNoiseSettings(SelfConsistencySettings):
    """Of one that asks no teacher."""

    guidance_scale: float = Field(1.0, ge=1, le=1, description="No teacher is asked, so there is nothing to guide: 1.")


class GuidanceRange(BaseModel):
    """Mixin of a method that learns guidance over a range of scales."""

    low_guidance: float = Field(1.0, ge=0, le=100, description="Smallest guidance scale that is drawn in training.")
    high_guidance: float = Field(3.0, ge=0, le=100, description="Largest guidance scale that is drawn in training.")

    @model_validator(mode="after")
    def low_to_high(self) -> Self:
        if self.low_guidance > self.high_guidance:
            raise ValueError(
                f"low_guidance ({self.low_guidance:g}) must not be above high_guidance ({self.high_guidance:g})"
            )
        return self


class LadderSettings(MethodSettings):
    """Of a method that halves the sampler's steps, rung by rung."""

    data_need: ClassVar[DataNeed] = "images"
    networks: ClassVar[int] = 4
    trained_networks: ClassVar[int] = 1

    first_steps: int = Field(8, ge=1, le=1024, description="Sampling steps of the first rung's student.")
    last_steps: int = Field(1, ge=1, le=1024, description="Sampling steps of the last rung's student.")
    rung_iterations: int = Field(
        240, ge=1, le=1_000_000, description="Optimizer steps per rung; the last two rungs take twice as many."
    )

    @model_validator(mode="after")
    def halving(self) -> Self:
        ratio, rest = divmod(self.first_steps, self.last_steps)
        if rest or ratio & (ratio - 1) or ratio == 0:
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


class TangentSettings(MethodSettings):
    """Of a method whose student learns from its own derivative along the flow."""

    data_need: ClassVar[DataNeed] = "images"
    networks: ClassVar[int] = 3
    trained_networks: ClassVar[int] = 1

    velocity: Literal["teacher", "data"] = Field(
        "teacher", description="Whose velocity the student follows: the teacher's, or that of image and noise."
    )
    difference_step: float | None = Field(
        0.2,
        gt=0,
        le=0.5,
        description="Width, in log(sigma/alpha), of the difference that stands for the derivative in time; null takes "
        "the exact one, in forward mode, which also sees the finest waves of a time embedding.",
    )
    time_mean: float = Field(0.0, ge=-10, le=10, description="Mean of log(sigma/alpha) of the times trained at.")
    time_std: float = Field(1.6, gt=0, le=10, description="Its standard deviation.")

    def passes(self) -> Passes:
        """The teacher is asked after the student; and the student again, in forward mode with a derivative of all."""
        if self.forward_mode():
            return Passes(idle=3)
        return Passes(idle=1 if self.guidance_scale == 1 else 2)

    @model_validator(mode="after")
    def guidance_is_the_teachers(self) -> Self:
        if self.velocity == "data" and self.guidance_scale != 1:
            raise ValueError('velocity "data" does not ask the teacher, so it cannot be guided: use guidance_scale 1')
        return self


class SoftConsistencySettings(FlowMapSettings):
    """Of a flow map whose jumps are compared at the clean end of the trajectory."""

    data_need: ClassVar[DataNeed] = "images"

    iterations: int = Field(700, ge=1, le=10_000_000, description="Optimizer steps.")
    grid_steps: int = Field(8, ge=2, le=1000, description="Intervals of the time grid that t, u and s are taken from.")
    solver_steps: int = Field(
        2, ge=1, le=100, description="Steps of the teacher's second-order solver on its part of the way, from t to u."
    )
    target_decay: float = Field(0.95, ge=0, lt=1, description="EMA decay of the network that goes on from there.")
    denoising_weight: float = Field(
        1.0, ge=0, le=100, description="Weight of the term that keeps the smallest steps the teacher's."
    )
