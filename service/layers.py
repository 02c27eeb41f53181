"""A network's layers, from its weights' names and shapes: how wide each is, and how often it runs for one image."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from service.families import Family
from service.folder import Shapes

ONCE = re.compile(
    r"time|t_embedder|guidance|pooled|text_embedder|class_embedd|adaln|adaLN|norm\w*\.(linear|emb)|add_emb"
)
"""Layers that see one vector for each image: its time, class or pooled prompt."""
LEVEL = re.compile(r"^(?:decoder\.)?(down|up)_blocks\.(\d+)\.")
UNIT = re.compile(r"^(.*?\b(?:resnets|transformer_blocks|single_transformer_blocks|layers|\w+_refiner)\.\d+)\.")
"""What diffusers runs again in a backward pass, where it is asked to keep only the inputs of such blocks."""


@dataclass(frozen=True)
class Layer:
    """A linear or convolutional layer.

    Attributes:
        unit: the block that it is a part of; empty outside of all.
        inputs, outputs: features, or channels.
        weights: how many.
        seen, given: places (tokens, pixels) of one image that it reads, and that it writes.
        prompt: whether those are tokens of a prompt alone.
        kernel: places along a side that one output depends on.
    """

    name: str
    unit: str
    inputs: int
    outputs: int
    weights: int
    seen: int
    given: int
    kernel: int
    prompt: bool = False

    @property
    def flops(self) -> int:
        """Of one image."""
        return 2 * self.weights * self.given

    @property
    def across(self) -> bool:
        """Whether it makes keys or values of a prompt, for queries of the image."""
        return self.prompt and re.search(r"attn2\.to_[kv]\.", self.name) is not None

    @property
    def resnet(self) -> bool:
        """Whether a norm and an activation come before it, as in the two convolutions of a residual block."""
        return re.search(r"resnets\.\d+\.conv[12]\.weight$", self.name) is not None


def unet_layers(shapes: Shapes, height: int, width: int, prompt: int = 0) -> Iterator[Layer]:
    """Of a UNet on [height, width], that looks at `prompt` tokens; each of its levels has half the height and width."""
    levels = 1 + max((int(found[2]) for name in shapes if (found := LEVEL.match(name))), default=0)
    for name, shape in _matrices(shapes):
        level = 0
        if found := LEVEL.match(name):
            level = int(found[2]) if found[1] == "down" else levels - 1 - int(found[2])
        elif name.startswith("mid_block."):
            level = levels - 1
        seen = given = max(1, height >> level) * max(1, width >> level)
        of_prompt = re.search(r"attn2\.to_[kv]\.", name) is not None
        if ".downsamplers." in name:
            given = max(1, seen // 4)
        elif ".upsamplers." in name:
            seen = given = 4 * seen
        elif ONCE.search(name):
            seen = given = 1
        elif of_prompt:
            seen = given = prompt
        yield _layer(name, shape, seen, given, of_prompt)


def transformer_layers(shapes: Shapes, family: Family, height: int, width: int, prompt: int) -> Iterator[Layer]:
    """Of a transformer over patches of latents [height, width], and over `prompt` tokens."""
    patch = family.patch_side or shapes[family.first][-1]
    image = (height // patch) * (width // patch)
    for name, shape in _matrices(shapes):
        of_prompt = bool(family.prompt_layers and re.search(family.prompt_layers, name))
        if ONCE.search(name):
            places = 1
        elif family.both_layers and re.search(family.both_layers, name):
            places = image + prompt
        elif of_prompt:
            places = prompt
        else:
            places = image
        yield _layer(name, shape, places, places, of_prompt)


def _matrices(shapes: Mapping[str, list[int]]) -> Iterator[tuple[str, list[int]]]:
    return ((name, shape) for name, shape in shapes.items() if name.endswith(".weight") and len(shape) in (2, 4))


def _layer(name: str, shape: list[int], seen: int, given: int, prompt: bool) -> Layer:
    outputs, inputs = shape[:2]
    if inputs == 1 and len(shape) == 4 and outputs > 1:
        inputs = outputs  # one channel each: a depthwise convolution
    unit = UNIT.match(name)
    kernel = shape[-1] if len(shape) == 4 else 1
    return Layer(name, unit[1] if unit else "", inputs, outputs, math.prod(shape), seen, given, kernel, prompt)
