"""Teachers that are diffusers' UNet2DModel: class-conditional or not, on a discrete VP path, in pixel space."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

import diffusers
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from service.errors import TeacherInvalid
from workers.diffusion.convert import Prediction
from workers.diffusion.paths import Path, VPDiscrete
from workers.models.denoiser import Denoiser
from workers.models.low_rank import copied
from workers.models.smaller import smaller
from workers.models.stock import PREDICTION_TYPES
from workers.models.taps import outputs
from workers.models.target_time import LabelAndTarget, bake


class UNetDenoiser(Denoiser):
    """A UNet2DModel with N class embeddings knows N - 1 classes; the last embedding stands for "no class".

    Its low-rank updates are of all its layers, apart from the embeddings of the time and of classes.
    """

    lora_targets = (
        *("to_q", "to_k", "to_v", "to_out.0", "time_emb_proj"),
        *("conv", "conv1", "conv2", "conv_shortcut", "conv_in", "conv_out"),
    )

    def __init__(self, unet: UNet2DModel, path: Path, prediction: Prediction) -> None:
        super().__init__()
        self.unet, self.path, self.prediction = unet, path, prediction

        size = unet.config.sample_size
        self.shape = (unet.config.in_channels, *((size, size) if isinstance(size, int) else size))
        self.feature_channels = (*unet.config.block_out_channels, unet.config.block_out_channels[-1])
        self.knows_target = isinstance(unet.class_embedding, LabelAndTarget)
        embeddings = unet.config.num_class_embeds
        if embeddings is not None:
            self.num_classes = self.null_label = embeddings - 1

    def around(self, unet: UNet2DModel) -> "UNetDenoiser":
        """The same of another network of this kind."""
        return UNetDenoiser(unet, self.path, self.prediction)

    def __deepcopy__(self, memo: dict[int, Any]) -> "UNetDenoiser":
        return self.around(copy.deepcopy(self.unet, memo))

    def _model_time(self, x: Tensor, t: Tensor) -> Tensor:
        return self.path.t_to_model(t).to(x.device, torch.float32, non_blocking=True)

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        if self.knows_target:
            assert s is not None, "this network has to be told the target time"
            labels = LabelAndTarget.pack(labels, self._model_time(x, s))
        return self.unet(x, self._model_time(x, t), class_labels=labels, return_dict=False)[0]

    def raw_features(self, x: Tensor, t: Tensor, labels: Tensor | None) -> list[Tensor]:
        """Of each block on the way down, before it halves the size, and of the bottleneck; half the network's cost."""
        down = list(self.unet.down_blocks)
        found = outputs(self.unet, [*down, self.unet.mid_block], lambda: self.raw(x, t, labels), self.runs_to_the_end)
        return [layers[len(block.resnets) - 1] for block, (_, layers) in zip(down, found, strict=False)] + found[-1:]

    def smaller(self, width: float, depth: float) -> "UNetDenoiser":
        return self.around(smaller(self.unet, width, depth)).eval()

    def with_conditions(self, copies: int) -> "UNetDenoiser":
        unet = copied(self.unet)
        bias = unet.time_embedding.linear_2.bias  # as wide as what a class adds to the time's embedding
        table = bias.new_zeros(1, len(bias)) if unet.class_embedding is None else unet.class_embedding.weight
        unet.class_embedding = nn.Embedding.from_pretrained(table.detach().repeat(copies, 1), freeze=False)
        unet.register_to_config(num_class_embeds=copies * len(table))
        return self.around(unet).eval().requires_grad_(True)

    def with_target(self) -> "UNetDenoiser":
        unet = copied(self.unet)
        if not isinstance(unet.time_embedding.linear_1, nn.Linear) or not isinstance(
            unet.time_embedding.linear_2, nn.Linear
        ):
            raise TeacherInvalid(
                "lora_targets must leave out linear_1 and linear_2, the layers of the time embedding: at export the "
                "second time is folded into them"
            )
        unet.class_embedding = LabelAndTarget(unet)
        return self.around(unet).eval().requires_grad_(True)

    def baked(self, steps: Sequence[tuple[float, float]]) -> "UNetDenoiser":
        """Exact at the times of `steps`, which must differ; a stock UNet2DModel, as the teacher's."""
        t, s = (self.path.t_to_model(torch.tensor(times, dtype=torch.float64)) for times in zip(*steps, strict=True))
        unet = bake(copied(self.unet), t, s)
        return self.around(unet).eval().requires_grad_(False)


def load_teacher(folder: FilePath) -> UNetDenoiser:
    """The teacher in a diffusers folder: `model_index.json`, `unet/` with safetensors, `scheduler/`.

    Raises:
        TeacherInvalid: a part is missing, of another kind, or not in safetensors.
    """
    index = _json(folder / "model_index.json")
    if index.get("unet") != ["diffusers", "UNet2DModel"]:
        raise TeacherInvalid(f"the teacher's unet must be a diffusers UNet2DModel, not {index.get('unet')}")
    config = _json(folder / "scheduler" / "scheduler_config.json")
    prediction = PREDICTION_TYPES.get(config.get("prediction_type", "epsilon"))
    if prediction is None:
        raise TeacherInvalid(
            f"prediction_type {config['prediction_type']!r} is not supported: use one of {sorted(PREDICTION_TYPES)}"
        )
    if not any((folder / "unet").glob("*.safetensors")):
        raise TeacherInvalid("the folder has no unet/*.safetensors; other weight formats are not loaded")
    try:
        unet = UNet2DModel.from_pretrained(folder / "unet", use_safetensors=True, low_cpu_mem_usage=False)
        path = VPDiscrete(teacher_scheduler(config).alphas_cumprod)
    except (ValueError, OSError, RuntimeError, KeyError, NotImplementedError) as error:
        raise TeacherInvalid(f"the teacher's folder cannot be loaded: {error}") from error
    refuse_no_images(unet)
    if prediction == "eps" and float(path.alpha(torch.ones((), dtype=torch.float64))) < 0.005:
        raise TeacherInvalid(
            "the teacher predicts epsilon and its last timestep is pure noise: one step from there is not defined; "
            "use a teacher that predicts v or the sample, or a noise schedule that keeps some signal"
        )
    return UNetDenoiser(unet, path, prediction).eval().requires_grad_(False)


def refuse_no_images(unet: UNet2DModel) -> None:
    """TeacherInvalid for a network that does not answer images with images of a known size."""
    if unet.config.sample_size is None or unet.config.in_channels != unet.config.out_channels:
        raise TeacherInvalid(
            "the teacher's unet must name its sample_size and give as many channels as it takes, not "
            f"sample_size {unet.config.sample_size}, {unet.config.in_channels} in, {unet.config.out_channels} out"
        )


def teacher_scheduler(config: dict[str, Any]) -> diffusers.DDIMScheduler:
    """A scheduler with the noise schedule of `config`, whatever class the config was written for."""
    return diffusers.DDIMScheduler.from_config({k: v for k, v in config.items() if not k.startswith("_")})


def scheduler_config(folder: FilePath) -> dict[str, Any]:
    """The teacher's scheduler config."""
    return _json(folder / "scheduler" / "scheduler_config.json")


def _json(file: FilePath) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        raise TeacherInvalid(f"the teacher's folder has no {file.parent.name}/{file.name}") from None
    except ValueError as error:
        raise TeacherInvalid(f"{file.name} is not JSON: {error}") from error
