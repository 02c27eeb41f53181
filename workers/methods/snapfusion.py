"""The step distillation of SnapFusion, Li et al., arXiv:2306.00980."""

from dataclasses import replace

from torch import Tensor

from service.methods.snapfusion import SnapFusionSettings
from workers.data.source import Batch
from workers.diffusion.guidance import guided_prediction
from workers.diffusion.timesteps import uniform
from workers.models.denoiser import Denoiser
from workers.randomness import BatchRng
from workers.templates.ladder import Ladder
from workers.templates.regression import Draw


class SnapFusion(Ladder[SnapFusionSettings]):
    """Section 4.2: a ladder whose student is to be guided itself, so guidance is part of what it learns.

    With probability p a batch has the CFG-aware loss: both steps of the teacher and the student's one are guided, at a
    scale w that is drawn for each image. The other batches have the plain loss, without guidance.

    Deviations: the weight is SNR + 1, not max(SNR, 1), as for the other ladder; the term that also denoises the images
    is left out, since the student starts from the teacher; the network is the teacher's, not a smaller one.
    """

    def __init__(self, settings: SnapFusionSettings, teacher: Denoiser, start: Denoiser) -> None:
        if settings.cfg_probability > 0 and teacher.null_label is None:
            raise ValueError(
                f"cfg_probability is {settings.cfg_probability:g}, but this teacher has no null class to guide away "
                "from: set cfg_probability to 0, or use a class-conditional teacher"
            )
        super().__init__(settings, teacher, start)

    def draw(self, batch: Batch | None, segment: int, rng: BatchRng) -> Draw:
        at = super().draw(batch, segment, rng)
        if rng.shared_integer(1_000_000) >= self.settings.cfg_probability * 1_000_000:
            return at
        return replace(at, scale=uniform(rng.uniform(), self.settings.low_guidance, self.settings.high_guidance))

    def x0(self, network: Denoiser, x: Tensor, t: Tensor, at: Draw) -> Tensor:
        """Guided, where the batch is."""
        if at.scale is None or at.labels is None:
            return network.predict(x, t, at.labels)
        return guided_prediction(network, x, t, at.labels, at.scale)

    def target(self, at: Draw) -> Tensor:
        teacher = self.above(at.segment)
        return self.landing(lambda x, t: self.x0(teacher, x, t, at), at)

    def output(self, at: Draw) -> Tensor:
        return self.x0(self.student, at.x, at.t, at)
