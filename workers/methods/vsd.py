"""Variational score distillation, from ProlificDreamer, Wang et al., arXiv:2305.16213."""

from torch import Tensor

from service.methods.vsd import VSDSettings
from workers.diffusion.losses import noise_gradient
from workers.models.counter import Counter
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.scores import Compared, ScoreMatching


class VSD(ScoreMatching[VSDSettings]):
    """w(t) (eps_phi - eps_psi)(x_t) with w = sigma^2 moves the particles; psi is trained on them.

    The particles are what the student makes of different noises. Late in training only the lower half of the noise
    levels is drawn, for detail, as in the paper: t <= 0.98, then t <= 0.5. Deviations: psi is a LoRA only with
    `fake_lora_rank`, it is trained at the levels at which it is asked, and updated more than once per step.
    """

    def __init__(self, settings: VSDSettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.counter = Counter()
        self.followers = {"counter": self.counter}

    def levels(self, rng: BatchRng, exit: Tensor) -> Tensor:
        low, t = self.lowest(exit), super().levels(rng, exit)
        late = self.counter.share(self.settings.total_steps()) >= self.settings.anneal_at
        return low + (t - low) / 2 if late else t

    def gradient(self, at: Compared) -> Tensor:
        return noise_gradient(at.real, at.fake, at.t, self.path)

    def after_step(self) -> None:
        self.counter.count()
