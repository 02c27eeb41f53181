"""Score distillation sampling, from DreamFusion, Poole et al., arXiv:2209.14988."""

from torch import Tensor

from service.methods.sds import SDSSettings
from workers.diffusion.losses import noise_gradient
from workers.templates.scores import Compared, Generator, Samples


class SDS(Generator[SDSSettings]):
    """w(t) (eps_phi(x_t) - eps) with w = sigma^2 moves the sample x, where eps is the noise that made x_t of it.

    There is no score of the samples, so nothing keeps them apart: the optimum is a mode, not the distribution.
    """

    def other(self, samples: Samples, x_t: Tensor, t: Tensor) -> Tensor:
        """The x0 that belongs to the injected noise: the sample itself."""
        return samples.x

    def gradient(self, at: Compared) -> Tensor:
        return noise_gradient(at.real, at.fake, at.t, self.path)
