"""What a distillation method is to the trainer."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from torch import Tensor, nn

from service.methods.base import DataNeed, MethodSettings
from workers.data.source import Batch
from workers.diffusion.sampler import SamplerKind, SamplerSpec
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng


@dataclass(frozen=True)
class LossOut:
    """A scalar to descend, and scalars to plot."""

    loss: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)


S = TypeVar("S", bound=MethodSettings)


class Method(ABC, Generic[S]):
    """One method: nets, losses, and how the student is run. It knows no optimizer, no checkpoint and no cluster.

    Args:
        settings: what the user asked for.
        teacher: frozen and, where asked for, guided.
        start: the network that the student starts from: the teacher's, or the student of the stage before.

    Attributes:
        student: what is trained and exported.
        trainable: role -> module; each role has its own optimizer. "student" is among them.
        followers: name -> module that changes by rule, not by gradient; saved with the rest.
    """

    sampler_kind: ClassVar[SamplerKind]
    teacher_is_start: ClassVar[bool] = False
    """Whether in a chain the student of the stage before is the teacher of this stage."""
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    """Adam's."""

    def __init__(self, settings: S, teacher: Denoiser, start: Denoiser) -> None:
        self.settings, self.teacher, self.path = settings, teacher, teacher.path
        self.student = self.make_student(self.low_rank(start, settings.lora_rank))
        self.trainable: dict[str, nn.Module] = {"student": self.student}
        self.followers: dict[str, nn.Module] = {}

    def low_rank(self, network: Denoiser, rank: int) -> Denoiser:
        """What copies of train low-rank updates in place of the weights of `network`; itself with rank 0."""
        return network.with_low_rank(rank, self.settings.lora_targets) if rank else network

    def make_student(self, start: Denoiser) -> Denoiser:
        """What is trained. With `lora_rank`, `start` has low-rank updates already, and its weights are shared."""
        return start.trainable_copy()

    @property
    def data_need(self) -> DataNeed:
        """What a batch is drawn from; none, and there is no batch."""
        return self.settings.data()

    def segments(self) -> list[int]:
        """Lengths in steps of the parts after each of which a student is finished and all optimizers start afresh."""
        return [self.settings.total_steps()]

    def turns(self, step: int) -> list[str]:
        """The roles that are updated in this step, in order; a function of the step alone, so all workers agree."""
        return ["student"]

    def learning_rate(self, role: str) -> float:
        """Peak of the role's schedule."""
        return self.settings.learning_rate

    @abstractmethod
    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        """What `role` descends in segment number `segment`. `batch` is there unless `data_need` is none."""

    def after_step(self) -> None:
        """Let followers follow."""

    def next_segment(self) -> None:
        """A segment is over and another one starts; the student holds the averaged weights that were finished."""

    def sampler(self, segment: int) -> SamplerSpec:
        """How the student that segment `segment` trains is to be run."""
        steps = self.settings.student_steps()[segment]
        return SamplerSpec.on(self.path, self.sampler_kind, steps)

    def students(self, segment: int, average: Denoiser) -> list[tuple[SamplerSpec, Denoiser]]:
        """What segment `segment` leaves, from the averaged weights: networks in the teacher's format."""
        return [(self.sampler(segment), average)]
