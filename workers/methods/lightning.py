"""SDXL-Lightning, Lin et al., arXiv:2402.13929: progressive adversarial distillation."""

from itertools import accumulate

import torch
from torch import Tensor

from service.methods.lightning import LightningSettings
from workers.data.source import Batch
from workers.diffusion.solver import jump
from workers.methods.base import LossOut
from workers.models.counter import Counter
from workers.models.critic import StepCritic
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.adversarial import Adversarial, Levels, Look
from workers.templates.ladder import Ladder
from workers.templates.regression import Draw


class Lightning(Ladder[LightningSettings]):
    """A ladder whose first rung regresses; below, a critic tells where the student's step lands from where two steps of
    the rung above do. At first it also sees where the step came from, which keeps the teacher's way from noise to image
    (section 3.2); then it does not, and the student is free to look real (3.3). The critic starts from the teacher.

    Deviations: rungs halve the steps, the paper's quarter them at first; landings are noised further, to random levels,
    on every rung (the paper: on the last two); R1; the heads read each block and are told which step it is.
    """

    betas = (0.0, 0.99)

    def __init__(self, settings: LightningSettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.levels, self.counter = Levels(settings), Counter()
        trunk = self.low_rank(teacher, settings.critic_lora_rank).trainable_copy()
        self.gan = Adversarial(settings, StepCritic(trunk, settings.first_steps), self.levels)
        self.trainable["critic"] = self.gan.critic
        self.followers |= {"levels": self.levels, "counter": self.counter}

    def turns(self, step: int) -> list[str]:
        return ["student"] if step < self.segments()[0] else ["critic", "student"]

    def learning_rate(self, role: str) -> float:
        return self.settings.critic_learning_rate if role == "critic" else self.settings.learning_rate

    def target(self, at: Draw) -> Tensor:
        teacher = self.above(at.segment)
        return self.landing(lambda x, t: teacher.predict(x, t, at.labels), at)

    def conditional(self, segment: int) -> bool:
        """Whether the critic is shown where steps come from; by the share of the rung that is done."""
        ends = list(accumulate(self.segments()))
        position = int(self.counter.steps) - (ends[segment] - self.segments()[segment])
        return position < self.settings.conditional_share * self.segments()[segment]

    def look(self, x0: Tensor, at: Draw, level: Tensor, rng: BatchRng) -> Look:
        """Where the step with this x0 lands, noised on to `level`."""
        x_s = jump(at.x, x0, at.t, at.s, self.path)
        x = self.path.add_more_noise(x_s, rng.normal_like(x_s), at.s, level)
        steps = self.settings.rungs()[at.segment]
        exit = ((1 - at.t) * steps).round().long().to(rng.device)
        return Look(x, level, at.labels, (exit, at.x, at.t) if self.conditional(at.segment) else (exit,))

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        if segment == 0:
            return super().loss(role, batch, segment, rng)
        at = self.draw(batch, segment, rng)
        level = torch.maximum(at.s, self.levels(rng.uniform()))
        with torch.set_grad_enabled(role == "student"):
            fake = self.look(self.output(at), at, level, rng)
        if role == "student":
            return LossOut(self.gan.generator_loss(fake).mean())
        with torch.no_grad():
            real = self.look(self.target(at), at, level, rng)
        return LossOut(self.gan.critic_loss(real, fake, rng).mean())

    def after_step(self) -> None:
        super().after_step()
        self.levels.after_step()
        self.counter.count()
