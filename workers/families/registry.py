"""All families, by the pipeline class that a folder's model_index.json names.

A family's module is imported when one of its folders is opened: pipelines and text encoders take seconds to import,
which workers and replicas of other teachers need not wait for.
"""

import importlib
import json
from pathlib import Path

from workers.models.backbone import Backbone

FAMILIES = {
    "StableDiffusionPipeline": "stable_diffusion.StableDiffusion",
    "StableDiffusionXLPipeline": "sdxl.SDXL",
    "StableDiffusion3Pipeline": "sd3.SD3",
    "FluxPipeline": "flux.Flux",
    "PixArtSigmaPipeline": "pixart_sigma.PixArtSigma",
    "SanaPipeline": "sana.Sana",
    "ZImagePipeline": "z_image.ZImage",
    "DiTPipeline": "dit.DiT",
}
"""Without EDM, whose networks are UNet2DModels like those of no family, and run like them."""


def family_of(folder: Path) -> type[Backbone] | None:
    """None for a folder of no family: a UNet2DModel's, or none of diffusers'."""
    file = folder / "model_index.json"
    name = json.loads(file.read_text()).get("_class_name", "") if file.exists() else ""
    if name not in FAMILIES:
        return None
    module, family = FAMILIES[name].split(".")
    found: type[Backbone] = getattr(importlib.import_module(f"workers.families.{module}"), family)
    return found
