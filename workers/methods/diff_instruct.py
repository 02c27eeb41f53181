"""Diff-Instruct, Luo et al., arXiv:2305.18455."""

from torch import Tensor

from service.methods.diff_instruct import DiffInstructSettings
from workers.diffusion.timesteps import log_normal
from workers.randomness import BatchRng
from workers.templates.scores import T_MAX, Compared, ScoreMatching


class DiffInstruct(ScoreMatching[DiffInstructSettings]):
    """The gradient of the integral of w(t) KL(q_t, p_t) is w(t) (s_q - s_p)(x_t) along dx_t/dtheta.

    w makes it the difference of the two x0, with weight one, at noise levels of which the log is normal. Deviations:
    levels are cut to those of the other score methods, and the fake score is updated more than once per step.
    """

    def levels(self, rng: BatchRng, exit: Tensor) -> Tensor:
        mean, std = self.settings.noise_mean, self.settings.noise_std
        return log_normal(rng.uniform(len(exit)), mean, std, self.path, self.lowest(exit), T_MAX)

    def gradient(self, at: Compared) -> Tensor:
        return at.fake - at.real
