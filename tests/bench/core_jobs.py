"""The jobs of bench_core.py: networks of the published sizes, or tiny ones of the same architecture.

Their weights are random, and nothing is downloaded. What text encoders would give them, one prompt and the empty one,
is random too, and of the right shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import nn

import workers
from service.families import PIPELINES
from service.folder import Shapes
from service.footprint import Footprint, pipeline_footprint, unet2d_footprint
from service.inspection import CLIP_TOKENS
from service.spec import JobSpec
from workers.families.sd3 import SD3
from workers.families.sdxl import SDXL
from workers.models.backbone import Backbone
from workers.models.conditions import Conditions
from workers.models.denoiser import Denoiser
from workers.models.stock import rectified_flow, variance_preserving
from workers.models.unet2d import UNetDenoiser

RECIPES = Path(workers.__file__).parent / "recipes"
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""stabilityai/stable-diffusion-xl-base-1.0: 2567 million parameters."""
TINY_SDXL = SDXL_UNET | {
    "sample_size": 16,
    "layers_per_block": 1,
    "block_out_channels": (16, 32, 32),
    "attention_head_dim": (2, 4, 4),
    "transformer_layers_per_block": (1, 1, 2),
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 64,
}
SD35_MEDIUM: dict[str, Any] = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
"""stabilityai/stable-diffusion-3.5-medium: 2243 million parameters."""
TINY_SD35 = SD35_MEDIUM | {
    "sample_size": 16,
    "num_layers": 2,
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "joint_attention_dim": 64,
    "caption_projection_dim": 64,
    "pooled_projection_dim": 32,
    "pos_embed_max_size": 16,
    "dual_attention_layers": (0,),
}
CIFAR_UNET: dict[str, Any] = {
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (256, 256, 256),
    "layers_per_block": 4,
    "time_embedding_dim": 672,
}
"""EDM's CIFAR-10 network (DDPM++ in arXiv:2206.00364) as nearly as a UNet2DModel has it: its channels, blocks and
attention, with a time embedding that makes up for the rest of its 55.7 million parameters."""
TINY_CIFAR = CIFAR_UNET | {"sample_size": 16, "block_out_channels": (32, 32, 32), "layers_per_block": 1}


@dataclass(frozen=True)
class Teacher:
    """A frozen network, and what the control plane would know of it."""

    denoiser: Denoiser
    parameters: int
    footprint: Footprint


def _sdxl(config: dict[str, Any], device: torch.device) -> Teacher:
    with device:
        network = UNet2DConditionModel(**config)
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        rows = {
            "prompt": _prompt(CLIP_TOKENS, config["cross_attention_dim"]),
            "pooled": _prompt(pooled),
            "sizes": torch.tensor([[1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0]] * 2),
        }
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    path, prediction = variance_preserving(DDIMScheduler(**betas))
    return _of_pipeline(SDXL(network, path, prediction, SDXL.shape_of(network), Conditions(rows)))


def _sd35(config: dict[str, Any], device: torch.device) -> Teacher:
    tokens = CLIP_TOKENS + PIPELINES[SD3.pipeline.__name__].prompt
    with device:
        network = SD3Transformer2DModel(**config)
        prompt, pooled = _prompt(tokens, config["joint_attention_dim"]), _prompt(config["pooled_projection_dim"])
    rows = {"prompt": prompt, "pooled": pooled}
    size = config["sample_size"]
    path = rectified_flow(FlowMatchEulerDiscreteScheduler(shift=3.0), (size // network.config.patch_size) ** 2)
    return _of_pipeline(SD3(network, path, "flow", (network.config.in_channels, size, size), Conditions(rows)))


def _cifar(config: dict[str, Any], device: torch.device) -> Teacher:
    with device:
        network = UNet2DModel(**config)
    denoiser = UNetDenoiser(network, *variance_preserving(DDIMScheduler(beta_schedule="linear")))
    return Teacher(denoiser, _parameters(network), unet2d_footprint(_shapes(network), denoiser.shape))


def _prompt(*shape: int) -> torch.Tensor:
    """One, and the empty one after it."""
    return torch.randn(2, *shape)


def _of_pipeline(denoiser: Backbone) -> Teacher:
    """The footprint is of the network alone, on latents in the place of pixels: nothing is encoded or decoded here."""
    family = PIPELINES[denoiser.pipeline.__name__]
    shapes = {family.network: _shapes(denoiser.network), "vae": {}}
    footprint = pipeline_footprint(family, shapes, denoiser.shape, factor=1, clip_tokens=CLIP_TOKENS)
    return Teacher(denoiser, _parameters(denoiser.network), footprint)


def _shapes(network: nn.Module) -> Shapes:
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@dataclass(frozen=True)
class Job:
    """A method on a teacher.

    Attributes:
        configs: of the published network and of a tiny one.
        tiny: what of the method is changed with the tiny one.
    """

    make: Callable[[dict[str, Any], torch.device], Teacher]
    configs: tuple[dict[str, Any], dict[str, Any]]
    method: dict[str, Any]
    compute: dict[str, Any]
    tiny: dict[str, Any]

    def teacher(self, tiny: bool, device: torch.device) -> Teacher:
        """Made where it is to be: billions of random numbers take a CPU minutes."""
        torch.manual_seed(0)
        made = self.make(self.configs[tiny], device)
        made.denoiser.eval().requires_grad_(False)
        return made

    def spec(self, tiny: bool, steps: int, compiled: bool) -> JobSpec:
        """Of so many steps on one GPU."""
        method = self.method | (self.tiny if tiny else {}) | {"iterations": steps}
        compute = self.compute | {"channels_last": True, "compile": compiled}
        on_one = {"teacher": "random", "resources": {"workers": 1, "gpus_per_worker": 1}}
        return JobSpec.model_validate(on_one | {"method": method, "compute": compute})


def _recipe(name: str) -> dict[str, Any]:
    """Its method."""
    method: dict[str, Any] = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["method"]
    return method


LEAN = {"precision": "bf16", "activation_checkpointing": True}
DMD2 = _recipe("dmd2-sdxl") | {"lora_rank": 64, "fake_lora_rank": 64, "batch_size": 8, "micro_batches": 2}
"""The recipe's, which trains whole networks on eight GPUs, with low-rank updates on one."""

TINY_DMD2 = {"lora_rank": 4, "fake_lora_rank": 4, "fake_updates": 1, "batch_size": 4, "micro_batches": 1}
JOBS = {
    "lcm-lora-sdxl": Job(
        _sdxl, (SDXL_UNET, TINY_SDXL), _recipe("lcm-lora-sdxl"), LEAN, {"lora_rank": 4, "batch_size": 8}
    ),
    "dmd2-sdxl": Job(_sdxl, (SDXL_UNET, TINY_SDXL), DMD2, LEAN, TINY_DMD2),
    "dmd2-sd3.5": Job(_sd35, (SD35_MEDIUM, TINY_SD35), DMD2, LEAN, TINY_DMD2),
    "ect-cifar": Job(
        _cifar, (CIFAR_UNET, TINY_CIFAR), _recipe("ect-edm-cifar10"), {"precision": "bf16"}, {"batch_size": 32}
    ),
}
