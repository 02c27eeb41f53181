"""Networks with EDM's preconditioning: a UNet on pixels, class-conditional or not."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import ConsistencyModelPipeline, UNet2DModel
from torch import Tensor

from service.errors import TeacherInvalid
from service.families import EDM_PREDICTIONS, EDM_SCHEDULERS
from workers.diffusion.paths import EDM as EDMPath
from workers.diffusion.paths import expand
from workers.diffusion.timesteps import SIGMA_MAX
from workers.models.unet2d import UNetDenoiser, refuse_no_images

SIGN = dict(zip(EDM_PREDICTIONS, (1.0, -1.0), strict=True))


class EDM(UNetDenoiser):
    """arXiv:2206.00364, table 1: x0 = c_skip x + c_out F(c_in x, ln(sigma)/4), for x = x0 + sigma eps.

    The folder is a ConsistencyModelPipeline: a UNet2DModel with one of diffusers' EDM schedulers, whose prediction type
    v means -F. On a path that preserves variance it is asked like any other network: noise of size 1 at t = 1 is the
    scheduler's noise of size sqrt(sigma_max^2 + 1).

    Args:
        sigma_data: standard deviation of the images that it was trained on.
        sign: of F in the network's answer.
    """

    pipeline: ClassVar[type[ConsistencyModelPipeline]] = ConsistencyModelPipeline

    def __init__(self, unet: UNet2DModel, path: EDMPath, sigma_data: float, sign: float) -> None:
        super().__init__(unet, path, "x0")
        self.path: EDMPath
        self.sigma_data, self.sign = sigma_data, sign

    @classmethod
    def of(cls, pipe: Any, prompts: Sequence[str] = ()) -> Self:
        """The denoiser of an opened pipeline; it takes no prompts."""
        config, scheduler = pipe.scheduler.config, type(pipe.scheduler).__name__
        if scheduler not in EDM_SCHEDULERS or config.prediction_type not in SIGN:
            raise TeacherInvalid(
                f"an EDM network needs one of the schedulers {', '.join(EDM_SCHEDULERS)} with prediction_type "
                f"{' or '.join(EDM_PREDICTIONS)}, not {scheduler} with {config.get('prediction_type')!r}"
            )
        path = EDMPath(min(float(config.sigma_max), SIGMA_MAX))
        return cls(pipe.unet, path, config.sigma_data, SIGN[config.prediction_type])

    def around(self, unet: UNet2DModel) -> "EDM":
        return EDM(unet, self.path, self.sigma_data, self.sign)

    def multiple(self) -> int | None:
        """None: its pipeline knows one size."""
        return None

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        norm = torch.hypot(sigma, self.sigma_data * alpha)
        answer = super().raw(x / expand(norm, x), t, labels, s)
        skip, out = alpha * (self.sigma_data / norm) ** 2, sigma * self.sigma_data / norm
        return expand(skip, x) * x + expand(self.sign * out, x) * answer


def is_edm(folder: Path) -> bool:
    """Whether the folder's network has EDM's preconditioning."""
    file = folder / "model_index.json"
    index = json.loads(file.read_text()) if file.exists() else {}
    return any(index.get("scheduler") == ["diffusers", name] for name in EDM_SCHEDULERS)


def open_edm(folder: Path) -> EDM:
    """The network of a teacher's or a student's folder. TeacherInvalid."""
    try:
        pipe = ConsistencyModelPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (ValueError, OSError, RuntimeError, KeyError, TypeError, NotImplementedError) as error:
        raise TeacherInvalid(f"the folder does not load as a ConsistencyModelPipeline: {error}") from error
    refuse_no_images(pipe.unet)
    return EDM.of(pipe).eval().requires_grad_(False)
