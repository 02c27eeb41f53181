"""Score distillation via inversion, Lukoianov et al., arXiv:2405.15891."""

import torch
from torch import Tensor

from service.methods.sdi import SDISettings
from workers.diffusion.convert import convert
from workers.diffusion.guidance import guided, unguided
from workers.models.counter import Counter
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.scores import T_MAX, T_MIN, Compared, Generator, Samples


class SDI(Generator[SDISettings]):
    """x0 <- x0 - (sigma/alpha)(eps_phi(x_t) - kappa): a DDIM step, seen from the clean images.

    kappa, in place of a random noise, solves kappa = eps_phi(alpha x0 + sigma kappa), and t falls over the training as
    it does in sampling. The step is x0 <- x0_phi(x_t), with weight one on clean images.

    Deviations: a student makes all samples, and moves to them by its optimizer's steps, not by DDIM's. The paper finds
    kappa by DDIM inversion of one image; but a student's samples are all alike at first, so a noise found from the
    sample alone keeps them alike. Here it is iterated from the noise that the sample was made of, each time half way.
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
        return self.ddim_inversion(samples, t) if self.settings.inversion == "ddim" else self.fixed_point(samples, t)

    def fixed_point(self, samples: Samples, t: Tensor) -> Tensor:
        """kappa, from the noise that is left of the student's input when the sample is taken away."""
        assert samples.origin is not None
        start = torch.tensor([now for now, _ in self.exits], dtype=torch.float64)[samples.exit.cpu()]
        kappa = convert(samples.origin, start, samples.x, "x0", "eps", self.path)
        for _ in range(self.settings.inversion_steps):
            x_t = self.path.add_noise(samples.x, kappa, t)
            kappa = (kappa + self.inverter.predict(x_t, t, samples.labels, "eps")) / 2
        return kappa

    def ddim_inversion(self, samples: Samples, t: Tensor) -> Tensor:
        """kappa, from where the teacher's trajectory leads upwards from the sample."""
        x, steps = samples.x, self.settings.inversion_steps
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
