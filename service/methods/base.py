"""What the settings of all distillation methods share."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Family = Literal["fidelity", "trajectory", "adversarial"]
DataNeed = Literal["none", "images", "pairs"]
"""Pairs are noises and what the teacher makes of them; a stage of its own makes and keeps them."""


@dataclass(frozen=True)
class Passes:
    """Passes of a whole batch through a network that are alive at once, in the turn that holds most.

    Attributes:
        trained: held for the gradients of weights.
        through: held for gradients that only pass through the network.
        idle: of a call without gradients beside them.
    """

    trained: float = 1.0
    through: float = 0.0
    idle: float = 0.0


class MethodSettings(BaseModel):
    """What all methods share. Subclasses add a literal `kind` and their own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    title: ClassVar[str]
    family: ClassVar[Family]
    paper: ClassVar[str]
    data_need: ClassVar[DataNeed]
    summary: ClassVar[str]
    forwards: ClassVar[float]
    backwards: ClassVar[float]
    """Passes of a whole batch through a network for one optimizer step of the student, with the defaults; a derivative
    in forward mode counts as a second forward, and with guidance each of the teacher's counts twice."""
    known_limit: ClassVar[str] = ""
    "What the method is known to be poor at, in one sentence, for the tables."
    networks: ClassVar[int]
    "How many networks of the teacher's size a worker holds: student, its EMA, teacher and the method's own."
    trained_networks: ClassVar[int]
    "How many of them have gradients and an optimizer."

    needs_classes: ClassVar[bool] = False
    "Whether it makes sense only with a teacher that knows classes."
    needs_own_network: ClassVar[bool] = False
    "Whether its student can be told more than the teacher is: where a step leads, or a guidance scale."
    fits_flows: ClassVar[bool] = True
    "Whether diffusers has a scheduler that runs its student without betas: on a flow, and under EDM's preconditioning."

    kind: str
    batch_size: int = Field(64, ge=1, le=65_536, description="Images per optimizer step, over all workers.")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Peak learning rate of the student's optimizer.")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="Decay of the averaged weights that are exported.")
    guidance_scale: float = Field(
        1.0, ge=0, le=100, description="Classifier-free guidance of the teacher, u + g(c - u); 1 is off."
    )

    student_width: float = Field(
        1.0, gt=0, le=1, description="Channels of the student, as a share of those of the network it starts from."
    )
    student_depth: float = Field(
        1.0, gt=0, le=1, description="Blocks of the student at each resolution, likewise; at least one is left."
    )
    lora_rank: int = Field(
        0,
        ge=0,
        le=1024,
        description="Rank of the low-rank updates (LoRA) that are trained in place of the weights; their alpha always "
        "equals it. 0 trains all weights.",
    )
    lora_targets: list[Annotated[str, StringConstraints(min_length=1, max_length=200)]] | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="The layers that get low-rank updates, by their names or the ends of them, such as to_q; null "
        "takes those that are usual for the teacher's family.",
    )
    max_grad_norm: float = Field(1.0, gt=0, le=1e6, description="Gradients are clipped to this norm, per role.")
    micro_batches: int = Field(
        1, ge=1, le=1024, description="Parts in which each worker runs its share of the batch, to save memory."
    )

    @model_validator(mode="after")
    def low_rank_makes_sense(self) -> Self:
        ranks = [name for name in type(self).model_fields if name.endswith("lora_rank")]
        if self.lora_targets is not None and not any(getattr(self, name) for name in ranks):
            raise ValueError(f"lora_targets says where low-rank updates go: set {' or '.join(ranks)} above 0 as well")
        if self.lora_rank and self.student_width * self.student_depth != 1:
            raise ValueError(
                "a low-rank update cannot make up for what a smaller student leaves out: set lora_rank to 0, or "
                "student_width and student_depth to 1"
            )
        return self

    def data(self) -> DataNeed:
        """What it needs as it is set."""
        return self.data_need

    def own_network(self) -> bool:
        """Whether its student is told more than the teacher is, as it is set."""
        return self.needs_own_network

    def guidance(self) -> dict[str, float]:
        """The fields that ask for guidance, as they are set, and the value that switches each off."""
        scales = [name for name in type(self).model_fields if name.endswith("guidance_scale")]
        return {name: 1 for name in scales if getattr(self, name) != 1}

    def renoises(self) -> bool:
        """Whether its student, as it is set, is run with fresh noise between its own number of steps."""
        return False

    def forward_mode(self) -> bool:
        """Whether the student is derived in forward mode, as it is set."""
        return getattr(self, "difference_step", 0.0) is None

    def second_derivative(self) -> bool:
        """Whether a critic's own gradient is descended, as it is set."""
        return getattr(self, "r1", "") == "exact" and getattr(self, "r1_weight", 0.0) > 0

    def other_rank(self) -> int:
        """Of the low-rank updates that are trained beside the student's; 0 where whole networks are, or none."""
        names = [name for name in type(self).model_fields if name.endswith("_lora_rank")]
        return max((getattr(self, name) for name in names), default=0)

    def samples(self, images: int) -> int:
        """How many are in a network at once where a part of a batch is of so many images."""
        return images

    def passes(self) -> Passes:
        """What is alive at once."""
        return Passes()

    def cost(self) -> tuple[float, float]:
        """`forwards` and `backwards` as it is set, with the guidance of the defaults."""
        return self.forwards, self.backwards

    def total_steps(self) -> int:
        """Optimizer steps of the student over the whole stage."""
        raise NotImplementedError

    def student_steps(self) -> list[list[int]]:
        """The students that the stage leaves: for each, the sampling steps it is made for, its own first."""
        raise NotImplementedError


class FeatureSettings(BaseModel):
    """Mixin of a method whose student can also learn the teacher's features, which helps a smaller one."""

    feature_weight: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Weight of how far the student's deepest features, projected linearly, are from the teacher's; "
        "0 is off.",
    )


class PairSettings(MethodSettings):
    """Of a method that learns from the teacher's own (noise, image) pairs."""

    data_need: ClassVar[DataNeed] = "pairs"

    pairs: int = Field(4096, ge=1, le=100_000_000, description="Pairs that the teacher makes before training starts.")
    pair_steps: int = Field(16, ge=1, le=1000, description="Steps of the teacher's second-order solver for each pair.")

    def pairs_at_once(self, images: int) -> int:
        """How many are made at once, where a part of a batch is of so many images; one at least. Guided, each is two
        rows of the network."""
        return max(1, images // (1 if self.guidance_scale == 1 else 2))
