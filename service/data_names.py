"""What files, columns and fields of a dataset are called: the same to who registers it and to who reads it."""

from collections.abc import Mapping, Sequence
from typing import Any

IMAGES = (".jpg", ".jpeg", ".png", ".webp")
METADATA = ("metadata.jsonl", "metadata.csv")
"""What is said of the images beside it and below, as Hugging Face's imagefolder has it."""
CAPTION_NAMES = ("caption", "text", "prompt")
"""Of columns and fields, the first that is there."""
LABEL_NAMES = ("label", "class", "cls")
IMAGE_NAMES = ("image", "img", "jpg", "png", "webp")
"""Of columns that are not said to be images."""
TRAIN = "train"
"""The split that is learnt from where there are several."""


def field(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of the fields that is there and not empty; of several captions in one list, the first."""
    found = (_text(row[name]) for name in names if row.get(name) is not None)
    return next((text for text in found if text), None)


def _text(value: object) -> str:
    """Empty for what is neither a text, nor a number, nor a list of them."""
    if isinstance(value, list):
        return next(filter(None, map(_text, value)), "")
    return str(value).strip() if isinstance(value, str | int | float) else ""
