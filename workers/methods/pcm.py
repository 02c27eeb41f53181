"""Phased consistency models, Wang et al., arXiv:2405.18407."""

import torch
from torch import Tensor

from service.methods.pcm import PCMSettings
from workers.data.source import Batch
from workers.diffusion.solver import jump
from workers.diffusion.timesteps import even_grid, grid_cell
from workers.methods.base import LossOut
from workers.models.critic import Critic
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.adversarial import Adversarial, Look
from workers.templates.consistency import SelfConsistency
from workers.templates.regression import Draw


class PCM(SelfConsistency[PCMSettings]):
    """Section 3: within the phase of t, f(x_t, t) = f-(x_s, s), where f is a DDIM step to the phase's lower edge.

    At the edge itself f is the identity (section 3.1). One step per phase samples, and needs no fresh noise. With
    `gan_weight`, a critic on the teacher's features tells f from f- at noise levels of the phase, and f learns to leave
    it no clue (section 3.3). Deviation: a pseudo-Huber distance, weighted as the template says.
    """

    sampler_kind = "ddim"

    def __init__(self, settings: PCMSettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.grid = even_grid(settings.phases * settings.phase_steps, self.path.t_max)
        self.edges = self.grid[:: settings.phase_steps].flip(0)
        if settings.gan_weight > 0:
            self.gan = Adversarial(settings, Critic(self.teacher))
            self.trainable["critic"] = self.gan.critic

    def turns(self, step: int) -> list[str]:
        return ["critic", "student"] if self.settings.gan_weight > 0 else ["student"]

    def learning_rate(self, role: str) -> float:
        return self.settings.critic_learning_rate if role == "critic" else self.settings.learning_rate

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        return grid_cell(rng.uniform(), self.grid)

    def phase(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The lower and the upper edge [B] of the phase that t is in; an edge is in the phase below it."""
        i = torch.searchsorted(self.edges, t)
        return self.edges[i - 1], self.edges[i]

    def f(self, network: Denoiser, x: Tensor, t: Tensor, at: Draw) -> Tensor:
        return jump(x, network.predict(x, t, at.labels), t, self.phase(at.t)[0], self.path)

    def loss(self, role: str, batch: Batch | None, segment: int, rng: BatchRng) -> LossOut:
        if self.settings.gan_weight == 0:
            return super().loss(role, batch, segment, rng)
        at = self.draw(batch, segment, rng)
        with torch.no_grad():
            target = self.target(at)
        with torch.set_grad_enabled(role == "student"):
            output = self.output(at)
        real, fake = self.looks(target, output, at, rng)
        if role == "critic":
            return LossOut(self.gan.critic_loss(real, fake, rng).mean())
        gan = self.gan.generator_loss(fake).mean()
        loss = self.distance(output, target, at).mean() + self.settings.gan_weight * gan
        return LossOut(loss, {"gan_loss": gan.detach()})

    def looks(self, target: Tensor, output: Tensor, at: Draw, rng: BatchRng) -> tuple[Look, Look]:
        """Both ends of a phase, noised to one and the same time of it."""
        edge, upper = self.phase(at.t)
        t = edge + (upper - edge) * (1 - rng.uniform())
        noised = (self.path.add_more_noise(x, rng.normal_like(x), edge, t) for x in (target, output))
        real, fake = (Look(x, t, at.labels) for x in noised)
        return real, fake
