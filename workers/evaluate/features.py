"""Models in whose features images are compared, opened from a folder: its safetensors and JSON, never code of its own.

`config.json` says by its `model_type` what a folder holds:
- `clip`: CLIP (arXiv:2103.00020), whose embeddings of images and of text share one space.
- `dinov2`: DINOv2 (arXiv:2304.07193).
- `inception_v3_fid`: the Inception that the Fréchet distance of most papers is taken in (see `inception`).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from service.errors import DataInvalid
from workers.artifact import folder_sha256
from workers.evaluate.inception import inception

AT_ONCE = 32
"""Images or prompts."""

NEEDED = "config.json, model.safetensors and preprocessor_config.json"


class Features(Protocol):
    """What turns images into rows of numbers. `identity` names the model and its weights."""

    identity: str

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 [N, D] on the CPU, of images [N, 1 or 3, H, W] in [-1, 1]."""

    def to(self, device: torch.device) -> None:
        """Move the network."""


class FromTransformers:
    """A model of transformers with the preparation of images that its folder describes, done on the CPU."""

    def __init__(self, folder: Path, model_class: Any) -> None:
        self.identity = folder_sha256(folder)[:12]
        self.model = open_model(folder, model_class)
        self.prepare: Any = transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, backend="pil"
        )
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        self.model.to(device)
        self.device = device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([self.embed(self.pixels(part)).cpu() for part in images.split(AT_ONCE)])

    def pixels(self, images: Tensor) -> Tensor:
        """What the model is given of images as they are saved: in 256 steps."""
        steps = (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
        colour = steps.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
        prepared: Tensor = self.prepare(images=list(colour), return_tensors="pt").pixel_values
        return prepared.to(self.device)

    def embed(self, pixels: Tensor) -> Tensor:
        """[B, D]"""
        raise NotImplementedError


class Clip(FromTransformers):
    """Its embeddings are those that its two towers are compared by, before they are brought to length 1."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, transformers.CLIPModel)
        self.identity = f"clip-{self.identity}"
        self.tokenizer: Any = transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    def embed(self, pixels: Tensor) -> Tensor:
        embeddings: Tensor = self.model.visual_projection(self.model.vision_model(pixels).pooler_output)
        return embeddings

    @torch.inference_mode()
    def text(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings [N, D] of prompts, on the CPU; what is too long for the model is cut."""
        length = self.model.config.text_config.max_position_embeddings
        parts = []
        for start in range(0, len(prompts), AT_ONCE):
            told = self.tokenizer(
                list(prompts[start : start + AT_ONCE]),
                padding="max_length",
                truncation=True,
                max_length=length,
                return_tensors="pt",
            ).to(self.device)
            found = self.model.text_model(told.input_ids, attention_mask=told.attention_mask).pooler_output
            parts.append(self.model.text_projection(found).cpu())
        return torch.cat(parts)


class Dino(FromTransformers):
    """The last layer's class token."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, transformers.Dinov2Model)
        self.identity = f"dinov2-{self.identity}"

    def embed(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.model(pixels).pooler_output
        return features


class Inception:
    """The last block's mean over space, [N, 2048], of images brought to 299 by 299 by plain bilinear interpolation."""

    def __init__(self, folder: Path) -> None:
        self.identity = f"inception-{folder_sha256(folder)[:12]}"
        found = load_file(folder / "model.safetensors")
        self.network = inception().eval().requires_grad_(False)
        self.network.load_state_dict({name: weight for name, weight in found.items() if not name.startswith("fc.")})
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        self.network.to(device)
        self.device = device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        colour = images.float().expand(-1, 3, -1, -1)
        return torch.cat([self._look(part.to(self.device)).cpu() for part in colour.split(AT_ONCE)])

    def _look(self, images: Tensor) -> Tensor:
        sized = functional.interpolate(images, (299, 299), mode="bilinear", align_corners=False)
        return self.network(sized).mean((2, 3))


KINDS: dict[str, type[Clip] | type[Dino] | type[Inception]] = {
    "clip": Clip,
    "dinov2": Dino,
    "inception_v3_fid": Inception,
}


def open_features(folder: Path, name: str) -> Features:
    """The model in `folder`, on the CPU. `name` is what the job calls the folder.

    Raises:
        DataInvalid: the folder holds no such model, and what would do.
    """
    config = folder / "config.json"
    try:
        kind = json.loads(config.read_text())["model_type"]
    except FileNotFoundError:
        raise DataInvalid(
            f"evaluation.features: '{name}' has no config.json; give the path of a folder that has {NEEDED}."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataInvalid(f"evaluation.features: the config.json of '{name}' names no model_type: {error!r}") from error
    if kind not in KINDS:
        raise DataInvalid(
            f"evaluation.features: '{name}' holds a model of type {kind!r}; features are taken from {', '.join(KINDS)}."
        )
    try:
        return KINDS[kind](folder)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise DataInvalid(
            f"evaluation.features: '{name}' does not open as {kind}, which needs {NEEDED}"
            f"{' and its tokenizer' if kind == 'clip' else ''}: {error}"
        ) from error


def open_model(folder: Path, model_class: Any) -> Any:
    """In float32, frozen. ValueError for weights that are missing: transformers would draw them at random."""
    model, loading = model_class.from_pretrained(
        folder, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
    return model.float().eval().requires_grad_(False)
