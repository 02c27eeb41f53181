"""What one image costs a teacher's network in memory and arithmetic, from the shapes of its weights alone.

The control plane cannot run a network, but a family's layers are always put together in the same way. A layer keeps its
input for the gradient of its weights; what comes after it (a norm, an activation, attention, a gate) keeps its output,
whether weights are trained or not. So an image keeps a fixed share of the sum of all layers' inputs, and a fixed
multiple of that of all outputs. The two factors of each family, `FITTED`, were fitted to what diffusers' networks of
published size keep on torch's `meta` device (float32, attention by a kernel that does not write out its weights):
Stable Diffusion 1.5, SDXL, SD 3.5 medium, and FLUX, PixArt-Sigma, DiT, SANA and Z-Image with few or all blocks.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from service.families import UNET2D, Family
from service.folder import Shapes
from service.layers import UNIT, Layer, transformer_layers, unet_layers

FITTED = {
    UNET2D: (0.62, 1.5),
    "stable-diffusion": (0.58, 1.36),
    "sdxl": (0.58, 1.36),
    "dit": (1.11, 1.10),
    "pixart-sigma": (0.98, 1.09),
    "sd3": (1.25, 1.12),
    "flux": (1.30, 1.35),
    "sana": (0.47, 1.80),
    "z-image": (1.71, 1.72),
}
"""By family: the share of linear layers' inputs that is kept where they are trained, and the multiple of their outputs
that is kept in any case."""
IN_FLOAT = {"flux": 0.2, "sana": 0.25, "z-image": 0.65}
"""By family: the share of what is kept that is in 32 bits also where networks run in 16, since they compute norms of
queries and keys, rotations or linear attention so; fitted to runs on a CPU. On GPUs torch adds norms of other kinds."""
NORMED_IN_FLOAT = 0.35
"""The same of an SD3 network that norms queries and keys."""
RESNET = 3
"""What a convolution in a residual block keeps, as a multiple of its input: a norm's input and output, and its own."""
NORMED = (0.4, 0.9)
"""The same two factors of queries and keys that are normed, beside those of their layers."""
PASSING, PASSING_DEPTHWISE = 3.0, 2.2
"""What is alive while a layer is run without gradients, as a multiple of its input and output; a depthwise convolution
comes after nothing as wide as itself that stays."""
DECODING = 4.0
"""Likewise of a VAE's decoder, of its widest feature map."""

CONVOLUTIONAL = (UNET2D, "stable-diffusion", "sdxl")
ADAPTED = re.compile(r"to_[qkv]\.weight|to_out\.0\.weight|add_[qkv]_proj\.weight|to_add_out\.weight")
"""The layers that get low-rank updates unless a job says otherwise; of a network without attention all do."""
SHARES = re.compile(r"to_[kv]\.weight|add_[kv]_proj\.weight")
"""Of those, the ones that read what the queries' layer reads too, or a prompt, which is there once for all."""
MEMBER = re.compile(r"^(\w+\.\d+)\.")
"""Of one of a network's own lists."""
UNUSED = "safety_checker"
"""A model that no job opens."""
PROMPT_INPUTS = ("context_embedder.weight", "caption_projection.linear_1.weight", "cap_embedder.1.weight")


@dataclass(frozen=True)
class Footprint:
    """Counts of numbers, not bytes; of one image, apart from the encoders'.

    Attributes:
        kept: activations held for a backward pass that only passes through the network.
        kept_for_weights: those held beside them for the gradients of all weights.
        kept_for_updates: those held instead for the gradients of low-rank updates of the attention.
        kept_by_blocks: those held where each block is run again in the backward pass: inputs, and one block's own.
        passing: the most that is alive in a forward pass without gradients.
        low_rank_weights: parameters of low-rank updates of rank 1.
        highest_rank: of such updates, that any of the weights could have.
        low_rank_places: places where such updates are applied.
        flops: of one forward pass.
        attention: of those, what is between queries, keys and values, which no weight takes part in.
        block: parameters of the largest block of those that are run again.
        gathered: parameters that are whole at once where a network is split between workers: of the two largest members
            of its lists, one that is run and one that comes next, and of what is in no list.
        kept_in_float: share of what is kept that takes 32 bits also where networks run in 16.
        prompt: numbers of one encoded prompt.
        encoders: parameters of text encoders and VAE.
        decoding: the most that is alive while an image is decoded.
    """

    kept: int
    kept_for_weights: int
    kept_for_updates: int
    kept_by_blocks: int
    passing: int
    low_rank_weights: int
    low_rank_places: int
    flops: int
    attention: int = 0
    highest_rank: int = 0
    block: int = 0
    gathered: int = 0
    kept_in_float: float = 0.0
    prompt: int = 0
    encoders: int = 0
    decoding: int = 0


def unet2d_footprint(shapes: Shapes, image_size: Sequence[int]) -> Footprint:
    """Of a UNet2DModel on pixels; `image_size` is [C, H, W]."""
    return _footprint(UNET2D, shapes, list(unet_layers(shapes, *image_size[1:])))


def pipeline_footprint(
    family: Family, shapes: dict[str, Shapes], image_size: Sequence[int], factor: int, clip_tokens: int
) -> Footprint:
    """Of a pipeline's network, and of what comes with it.

    Args:
        shapes: of all its models.
        image_size: [3, H, W] in pixels.
        factor: pixels to a latent along a side.
        clip_tokens: of a prompt, as its CLIP has them.
    """
    own = shapes[family.network]
    sides = image_size[1] // factor, image_size[2] // factor
    tokens = family.prompt + (clip_tokens if family.clip else 0)
    if family.transformer:
        layers = list(transformer_layers(own, family, *sides, tokens))
    else:
        layers = list(unet_layers(own, *sides, tokens))
    inputs = [shape[1] for name, shape in own.items() if name.endswith((*PROMPT_INPUTS, "attn2.to_k.weight"))]
    others = [part.values() for name, part in shapes.items() if name not in (family.network, UNUSED)]
    wide = [shape[1] for name, shape in shapes["vae"].items() if "decoder.up_blocks" in name and len(shape) == 4]
    narrow = min((channels for channels in wide if channels > 1), default=1)
    return _footprint(
        family.name,
        own,
        layers,
        linear_attention=family.linear_attention,
        prompt=tokens * max(inputs, default=0),
        encoders=sum(math.prod(shape) for part in others for shape in part),
        decoding=round(DECODING * 2 * narrow * image_size[1] * image_size[2]),
    )


def _footprint(
    family: str,
    shapes: Shapes,
    layers: Sequence[Layer],
    linear_attention: bool = False,
    prompt: int = 0,
    encoders: int = 0,
    decoding: int = 0,
) -> Footprint:
    normed = {name.rsplit(".", 2)[0] for name in shapes if name.endswith((".norm_q.weight", ".norm_k.weight"))}
    adapted = [layer for layer in layers if ADAPTED.search(layer.name)] or layers
    kept = {
        layer.name: _kept(family, layer, family == "sd3" and layer.name.rsplit(".", 2)[0] in normed) for layer in layers
    }
    blocks: dict[str, float] = {}
    inputs: dict[str, int] = {}
    for layer in layers:
        blocks[layer.unit] = blocks.get(layer.unit, 0) + sum(kept[layer.name])
        inputs.setdefault(layer.unit, layer.inputs * layer.seen)
    attention = _attention(layers, linear_attention)
    outside = blocks.pop("", 0)
    inputs.pop("", None)
    skips = sum(
        layer.outputs * layer.given for layer in layers if re.search(r"^down_blocks.*conv2\.weight", layer.name)
    )
    return Footprint(
        kept=round(sum(always for _, always in kept.values())),
        kept_for_weights=round(sum(trained for trained, _ in kept.values())),
        kept_for_updates=round(sum(layer.inputs * layer.seen for layer in adapted if not SHARES.search(layer.name))),
        kept_by_blocks=round(outside + sum(inputs.values()) + max(blocks.values(), default=0)),
        passing=round(max(_passing(layer) for layer in layers) + skips),
        low_rank_weights=sum(layer.outputs + layer.weights // layer.outputs for layer in adapted),
        low_rank_places=sum(layer.given for layer in adapted),
        highest_rank=max(min(layer.outputs, layer.weights // layer.outputs) for layer in adapted),
        block=max((parameters for unit, parameters in _parameters(UNIT, shapes).items() if unit), default=0),
        gathered=_gathered(shapes),
        kept_in_float=NORMED_IN_FLOAT if family == "sd3" and normed else IN_FLOAT.get(family, 0.0),
        flops=sum(layer.flops for layer in layers) + attention,
        attention=attention,
        prompt=prompt,
        encoders=encoders,
        decoding=decoding,
    )


def _parameters(part: re.Pattern[str], shapes: Shapes) -> dict[str, int]:
    """Of each part of a network, by what the pattern finds first in its weights' names; "" for what is in none."""
    found: dict[str, int] = {}
    for name, shape in shapes.items():
        named = part.match(name)
        unit = named[1] if named else ""
        found[unit] = found.get(unit, 0) + math.prod(shape)
    return found


def _gathered(shapes: Shapes) -> int:
    parts = _parameters(MEMBER, shapes)
    rest = parts.pop("", 0)
    return rest + sum(sorted(parts.values())[-2:])


def _passing(layer: Layer) -> float:
    depthwise = layer.kernel > 1 and layer.weights == layer.outputs * layer.kernel**2
    return (PASSING_DEPTHWISE if depthwise else PASSING) * (layer.inputs * layer.seen + layer.outputs * layer.given)


def _kept(family: str, layer: Layer, normed: bool) -> tuple[float, float]:
    """Numbers kept where the layer is trained, and in any case."""
    if layer.resnet:
        return 0.0, RESNET * layer.inputs * layer.seen
    if ".conv_shortcut." in layer.name:
        return 0.0, 0.0
    if layer.kernel > 1 and family in CONVOLUTIONAL:
        return 0.0, layer.inputs * layer.seen  # a convolution's input is saved in any case
    if layer.across:
        return 0.0, layer.outputs * layer.given  # all blocks share one input
    share, multiple = FITTED[family]
    if normed and re.search(r"(to|add)_[qk]", layer.name):
        share, multiple = share + NORMED[0], multiple + NORMED[1]
    return share * layer.inputs * layer.seen, multiple * layer.outputs * layer.given


def _attention(layers: Sequence[Layer], linear: bool) -> int:
    """Operations of all queries with their keys and values."""
    by_name = {layer.name: layer for layer in layers}
    flops = 0
    for name, query in by_name.items():
        if not name.endswith(".to_q.weight") or (linear and ".attn1." in name):
            continue
        added = by_name.get(name.replace("to_q", "add_k_proj"))
        extra = added.given if added else 0
        keys = by_name[name.replace("to_q", "to_k")].given + extra
        flops += 4 * (query.given + extra) * keys * query.outputs
    return flops
