"""Score distillation via inversion, Lukoianov et al., arXiv:2405.15891."""

import math

import torch
from torch import Tensor

from service.methods import SDISettings
from workers.diffusion.convert import convert
from workers.diffusion.guidance import guided, unguided
from workers.models.counter import Counter
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.scores import T_MAX, T_MIN, Compared, Generator, Samples


class SDI(Generator[SDISettings]):
    """x0 <- x0 - (sigma/alpha)(eps_phi(x_t) - kappa): a DDIM step, seen from the clean images.

    kappa is the noise that DDIM inversion finds for the sample, in place of a random one, and t falls over the training
    as it does in sampling. The step is x0 <- x0_phi(x_t), with weight one on clean images. Deviation: a student makes
    all samples, and moves to them by its optimizer's steps, not by DDIM's.
    """

    def __init__(self, settings: SDISettings, teacher: Denoiser, start: Denoiser) -> None:
        super().__init__(settings, teacher, start)
        self.inverter = guided(unguided(teacher), settings.inversion_guidance_scale)
        self.counter = Counter()
        self.followers = {"counter": self.counter}

    def levels(self, rng: BatchRng, exit: Tensor) -> Tensor:
        share = self.counter.share(self.settings.total_steps())
        return self.lowest(exit).clamp(min=T_MAX + (T_MIN - T_MAX) * share)

    @torch.no_grad()
    def noise(self, samples: Samples, t: Tensor, rng: BatchRng) -> Tensor:
        """kappa: the noise at t, if the teacher's trajectory is followed from the sample upwards."""
        x, steps = samples.x, max(1, math.ceil(self.settings.inversion_steps * float(t.max())))
        for i in range(steps):
            s = t * (i / steps)
            eps = self.inverter.predict(x, s.clamp(min=T_MIN), samples.labels, "eps")
            x = self.path.add_noise(convert(x, s, eps, "eps", "x0", self.path), eps, t * ((i + 1) / steps))
        return convert(x, t, samples.x, "x0", "eps", self.path)

    def other(self, samples: Samples, x_t: Tensor, t: Tensor) -> Tensor:
        """The x0 that belongs to kappa: the sample itself."""
        return samples.x

    def gradient(self, at: Compared) -> Tensor:
        return at.fake - at.real

    def after_step(self) -> None:
        self.counter.count()
