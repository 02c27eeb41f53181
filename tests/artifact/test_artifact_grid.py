"""Sample grids hold the images where they belong."""

import io

import pytest
import torch
from PIL import Image

from workers.grid import grid_png, to_pil


def opened(png: bytes) -> Image.Image:
    assert png.startswith(b"\x89PNG")
    return Image.open(io.BytesIO(png))


def test_pixels_are_enlarged_in_place() -> None:
    rows = [torch.full((3, 1, 2, 2), -1.0), torch.full((2, 1, 2, 2), 5.0)]  # values above 1 are clipped
    rows[0][1, 0, 0, 1] = 1.0
    grid = opened(grid_png(rows, scale=10))
    gap = 5
    assert grid.size == (gap + 3 * (20 + gap), gap + 2 * (20 + gap))
    pixel = lambda row, column, y, x: grid.getpixel((gap + column * 25 + x, gap + row * 25 + y))  # noqa: E731
    assert pixel(0, 1, 0, 10) == pixel(0, 1, 9, 19) == (255, 255, 255)
    assert pixel(0, 1, 10, 10) == pixel(0, 1, 0, 9) == (0, 0, 0)
    assert pixel(1, 1, 5, 5) == (255, 255, 255)
    assert pixel(1, 2, 5, 5) == grid.getpixel((0, 0)), "a short row leaves background"


def test_labels_stand_left_of_their_rows() -> None:
    row = torch.zeros(2, 3, 8, 8)
    plain, labelled = opened(grid_png([row])), opened(grid_png([row], labels=["student, 1 step"]))
    assert plain.height == labelled.height
    margin = labelled.width - plain.width
    assert margin > 80
    text = labelled.crop((0, 0, margin, labelled.height)).convert("L")
    assert min(text.get_flattened_data() if hasattr(text, "get_flattened_data") else text.getdata()) < 100
    assert labelled.getpixel((labelled.width - 10, labelled.height // 2)) == (128, 128, 128)


def test_large_images_keep_their_size_and_colour() -> None:
    image = torch.zeros(1, 3, 100, 80)
    image[:, 0] = 1.0
    grid = opened(grid_png([image]))
    assert grid.getpixel((40, 50)) == (255, 128, 128)
    assert grid.size == (2 + 82, 2 + 102)
    assert to_pil(image[0]).size == (80, 100)


def test_labels_must_match_the_rows() -> None:
    with pytest.raises(ValueError, match="2 labels for 1 rows"):
        grid_png([torch.zeros(1, 1, 8, 8)], labels=["a", "b"])
