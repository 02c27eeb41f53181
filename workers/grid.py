"""Sample grids as PNG."""

import io
import textwrap
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (250, 250, 250)
INK = (40, 40, 40)
TARGET_SIDE = 64
"""Small images are enlarged to about this many pixels."""

LARGEST_SIDE = 256
"""Larger images are made smaller: a grid is to be looked at, and many are kept."""

LABEL_WIDTH, LABEL_LINES = 24, 4
"""Letters of a line, and lines, of what is written beside a row."""


def grid_png(
    rows: Sequence[torch.Tensor],
    scale: int | None = None,
    labels: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
) -> bytes:
    """A PNG of `rows`, each [N, C, H, W] in [-1, 1] with C 1 or 3 and one H, W for all; values outside are clipped.

    Pixels are enlarged `scale` times without smoothing; by default small images are brought to about 64 pixels, and
    those of more than 256 down to that. `labels`, one per row, are written to the left of the rows. `heads` are written
    above the columns, each above an equal share of them.
    """
    if labels is not None and len(labels) != len(rows):
        raise ValueError(f"{len(labels)} labels for {len(rows)} rows")
    columns = max(len(row) for row in rows)
    if heads is not None and columns % len(heads):
        raise ValueError(f"{len(heads)} heads for {columns} columns")
    height, width = rows[0].shape[-2:]
    factor = scale or min(max(1, round(TARGET_SIDE / max(height, width))), LARGEST_SIDE / max(height, width))
    cell_height, cell_width, gap = round(height * factor), round(width * factor), max(2, int(factor) // 2)
    letters = max(12, min(20, cell_height // 3))
    font = ImageFont.load_default(size=letters)
    texts = [wrapped(label) for label in labels or ()]
    lengths = [font.getlength(line) for text in texts for line in text.splitlines()]
    margin = 5 * gap + round(max(lengths)) if texts else gap
    top = 2 * letters if heads else 0
    size = (margin + columns * (cell_width + gap), top + gap + len(rows) * (cell_height + gap))
    canvas = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for i, head in enumerate(heads or ()):
        share = columns // len(heads or ()) * (cell_width + gap)
        pen.text((margin + i * share + share // 2, top // 2), head, INK, font, anchor="mm")
    smooth = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    for i, row in enumerate(rows):
        y = top + gap + i * (cell_height + gap)
        if texts:
            pen.text((margin - 2 * gap, y + cell_height // 2), texts[i], INK, font, anchor="rm", align="right")
        for j, image in enumerate(row):
            cell = to_pil(image).resize((cell_width, cell_height), smooth)
            canvas.paste(cell, (margin + j * (cell_width + gap), y))
    return png_bytes(canvas)


def wrapped(label: str) -> str:
    """On a few lines, and cut where it is too long."""
    lines = textwrap.wrap(label, LABEL_WIDTH, max_lines=LABEL_LINES, placeholder=" …")
    return "\n".join(lines)


def to_pil(image: torch.Tensor) -> Image.Image:
    """[C, H, W] in [-1, 1] as a grey (C = 1) or RGB (C = 3) picture."""
    bytes_CHW = (image.detach().float().cpu().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
    if bytes_CHW.shape[0] == 1:
        return Image.fromarray(bytes_CHW[0].numpy())
    return Image.fromarray(bytes_CHW.permute(1, 2, 0).contiguous().numpy())


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
