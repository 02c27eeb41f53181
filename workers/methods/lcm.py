"""Latent consistency models, Luo et al., arXiv:2310.04378."""

import torch
from torch import Tensor

from service.methods.lcm import LCMSettings
from workers.diffusion.sampler import consistency_function
from workers.diffusion.solver import jump
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.consistency import AveragedTarget
from workers.templates.regression import Draw
from workers.templates.told_guidance import ToldGuidance


class LCM(ToldGuidance[LCMSettings], AveragedTarget[LCMSettings]):
    """Algorithm 1: consistency distillation of the guided teacher, from t_{n+k} to t_n on a fine grid (section 4.3).

    The trajectory is that of the guided probability flow (eq. 8): the teacher steps by u + g (c - u), with g = 1 + w.
    Deviations: below t_k the step ends at 0, so that every time of the grid is learnt; a pseudo-Huber distance,
    weighted as the template says; the range of g is by default a single scale, of which the student is not told.

    With `lora_rank` 64 and a pipeline's `lora_targets` this is LCM-LoRA (arXiv:2311.05556).
    """

    scales_named = "guidance_scale -+ guidance_spread"

    def scales(self) -> tuple[float, float]:
        g, spread = self.settings.guidance_scale, self.settings.guidance_spread
        return g - spread, g + spread

    def times(self, rng: BatchRng, segment: int) -> tuple[Tensor, Tensor]:
        n = self.settings.grid_steps
        i = torch.floor(rng.uniform() * n) + 1
        return i / n * self.path.t_max, (i - self.settings.skip).clamp(min=0) / n * self.path.t_max

    def f(self, network: Denoiser, x: Tensor, t: Tensor, at: Draw) -> Tensor:
        return consistency_function(x, self.told_x0(network, x, t, at), t, self.path)

    def neighbour(self, at: Draw) -> Tensor:
        return jump(at.x, self.guided(at), at.t, at.s, self.path)
