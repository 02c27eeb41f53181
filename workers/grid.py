"""Sample grids as PNG: a row per sampler, a column per seed."""

import io
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (250, 250, 250)
INK = (40, 40, 40)
TARGET_SIDE = 64
"""Small images are enlarged to about this many pixels."""


def grid_png(rows: Sequence[torch.Tensor], scale: int | None = None, labels: Sequence[str] | None = None) -> bytes:
    """A PNG of `rows`, each [N, C, H, W] in [-1, 1] with C 1 or 3 and one H, W for all; values outside are clipped.

    Pixels are enlarged `scale` times without smoothing; by default small images are brought to about 64 pixels.
    `labels`, one per row, are written to the left of the rows.
    """
    if labels is not None and len(labels) != len(rows):
        raise ValueError(f"{len(labels)} labels for {len(rows)} rows")
    height, width = rows[0].shape[-2:]
    scale = scale or max(1, round(TARGET_SIDE / max(height, width)))
    cell_height, cell_width, gap = height * scale, width * scale, max(2, scale // 2)
    font = ImageFont.load_default(size=max(12, min(20, cell_height // 3)))
    margin = 5 * gap + max(round(font.getlength(label)) for label in labels) if labels else gap
    columns = max(len(row) for row in rows)
    size = (margin + columns * (cell_width + gap), gap + len(rows) * (cell_height + gap))
    canvas = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for i, row in enumerate(rows):
        top = gap + i * (cell_height + gap)
        if labels:
            pen.text((margin - 2 * gap, top + cell_height // 2), labels[i], INK, font, anchor="rm")
        for j, image in enumerate(row):
            cell = to_pil(image).resize((cell_width, cell_height), Image.Resampling.NEAREST)
            canvas.paste(cell, (margin + j * (cell_width + gap), top))
    return png_bytes(canvas)


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
