"""All families, by the pipeline class that a folder's model_index.json names."""

import json
from pathlib import Path

from workers.families.dit import DiT
from workers.families.flux import Flux
from workers.families.pixart_sigma import PixArtSigma
from workers.families.sana import Sana
from workers.families.sd3 import SD3
from workers.families.sdxl import SDXL
from workers.families.stable_diffusion import StableDiffusion
from workers.families.z_image import ZImage
from workers.models.backbone import Backbone

FAMILIES: dict[str, type[Backbone]] = {
    family.pipeline.__name__: family for family in (StableDiffusion, SDXL, SD3, Flux, PixArtSigma, Sana, ZImage, DiT)
}
"""Without EDM: its adapter is there, but no scheduler of diffusers runs a few-step student of it."""


def family_of(folder: Path) -> type[Backbone] | None:
    """None for a folder of no family: a UNet2DModel's, or none of diffusers'."""
    file = folder / "model_index.json"
    return FAMILIES.get(json.loads(file.read_text()).get("_class_name", "")) if file.exists() else None
