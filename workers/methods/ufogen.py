"""UFOGen, Xu et al., arXiv:2311.09257."""

from torch import Tensor

from service.methods.ufogen import UFOGenSettings
from workers.diffusion.losses import squared
from workers.models.critic import BlockCritic
from workers.randomness import BatchRng
from workers.templates.adversarial import LOWEST
from workers.templates.gan import AdversarialMethod, Answer


class UFOGen(AdversarialMethod[UFOGenSettings]):
    """Equation 6: the critic tells q(x_s | x0) from q(x_s | student's x0), s being the next time of the sampler, and
    the student also reconstructs, gamma_t |x0 - student's x0|^2. Both networks start from the teacher (section 4.2).

    gamma_t = gamma alpha(t)^2: from pure noise there is nothing to reconstruct. Deviations: see the template; at the
    last step, where s = 0, the critic is shown a little noise.
    """

    def make_critic(self) -> BlockCritic:
        trunk = self.low_rank(self.teacher, self.settings.critic_lora_rank).trainable_copy()
        return BlockCritic(trunk, self.settings.steps, trained=True)

    def critic_times(self, at: Answer, rng: BatchRng) -> Tensor:
        return at.s.clamp(min=LOWEST)

    def other_loss(self, at: Answer, rng: BatchRng) -> Tensor:
        weight = self.settings.reconstruction_weight * self.path.alpha(at.t) ** 2
        return weight.to(at.x0) * squared(at.x0, at.images)
