"""From an image file to what a network sees of it."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from workers.data.buckets import Size, nearest
from workers.data.sample import Corrupt

LARGEST_GROWTH = 8
"""An image that would have to grow by more, along a side, shows nothing of its kind."""


def pixels(content: bytes, channels: int, sizes: Sequence[Size]) -> Tensor:
    """[C, H, W] float32 in [-1, 1] of an encoded image: upright, scaled to cover a size and cropped to its centre.

    Args:
        channels: 1 (grey) or 3. What is transparent becomes white.
        sizes: to choose from, by the image's own proportions.

    Raises:
        Corrupt: it cannot be decoded, or is too small.
    """
    try:
        with Image.open(io.BytesIO(content)) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith(("I", "F")):
                image = eight_bits(image)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert("L" if channels == 1 else "RGB")
    except Corrupt:
        raise
    except UnidentifiedImageError as error:
        raise Corrupt("it cannot be decoded: it is of no known format") from error
    except Exception as error:  # each decoder raises what it likes
        raise Corrupt(f"it cannot be decoded: {error}") from error
    height, width = nearest((image.height, image.width), sizes)
    if min(image.size) == 1 or max(height / image.height, width / image.width) > LARGEST_GROWTH:
        raise Corrupt(f"it has {image.width} by {image.height} pixels, where {width} by {height} are asked for")
    fitted = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    values = torch.from_numpy(np.array(fitted, dtype=np.float32)) / 127.5 - 1
    return values.reshape(height, width, channels).permute(2, 0, 1).contiguous()


def eight_bits(image: Image.Image) -> Image.Image:
    """Of a grey image with 16 bits, which Pillow would cut off at 255. Raises Corrupt for values of no known range."""
    if not image.mode.startswith("I;16"):
        raise Corrupt("its pixels are numbers of 32 bits, of which nobody says what is white; save it with 8 or 16")
    values = np.asarray(image.convert("I"), dtype=np.float32)
    return Image.fromarray((values / 257).round().astype(np.uint8))
