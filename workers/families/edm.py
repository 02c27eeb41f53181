"""Networks with EDM's preconditioning: a UNet on pixels, class-conditional or not."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from diffusers import ConsistencyModelPipeline
from torch import Tensor

from service.errors import TeacherInvalid
from workers.diffusion.paths import EDM as EDMPath
from workers.diffusion.paths import expand
from workers.models.unet_backbone import UNetBackbone

SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
SIGN = {"epsilon": 1.0, "v_prediction": -1.0}


class EDM(UNetBackbone):
    """arXiv:2206.00364, table 1: x0 = c_skip x + c_out F(c_in x, ln(sigma)/4), on the path x = x0 + sigma eps.

    The folder is a UNet2DModel with one of diffusers' EDM schedulers, whose prediction type v means -F. With N class
    embeddings the network knows N - 1 classes, and the last embedding stands for "no class".

    Attributes:
        sigma_data: standard deviation of the images that it was trained on.
        sign: of F in the network's answer.
    """

    pipeline = ConsistencyModelPipeline
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2")
    sigma_data: float
    sign: float

    @classmethod
    def of(cls, pipe: Any, prompts: Sequence[str]) -> Self:
        config, scheduler = pipe.scheduler.config, type(pipe.scheduler).__name__
        if scheduler not in SCHEDULERS or config.prediction_type not in SIGN:
            raise TeacherInvalid(
                f"an EDM network needs one of the schedulers {', '.join(SCHEDULERS)} with prediction_type epsilon or "
                f"v_prediction, not {scheduler} with {config.get('prediction_type')!r}"
            )
        embeddings = pipe.unet.config.num_class_embeds
        classes = None if embeddings is None else embeddings - 1
        path = EDMPath(config.sigma_max)
        denoiser = cls(pipe.unet, path, "x0", cls.shape_of(pipe.unet), None, classes)
        denoiser.sigma_data, denoiser.sign = config.sigma_data, SIGN[config.prediction_type]
        return denoiser

    def multiple(self) -> int | None:
        """None: its pipeline knows one size."""
        return None

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        norm = torch.hypot(t, torch.full_like(t, self.sigma_data))
        answer = super().raw(x / expand(norm, x), t, labels)
        skip, out = (self.sigma_data / norm) ** 2, t * self.sigma_data / norm
        return expand(skip, x) * x + expand(self.sign * out, x) * answer

    def call(self, x: Tensor, time: Tensor, rows: dict[str, Tensor]) -> Tensor:
        return self.network(x, time, class_labels=rows.get("labels"), return_dict=False)[0]
