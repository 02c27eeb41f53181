"""Datasets of all formats, made of small images whose colour says which one it is."""

import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from diffusers import ConsistencyModelPipeline, DDIMScheduler, UNet2DModel
from PIL import Image

SIDE = 8


def colour(number: int) -> int:
    """Grey value of image `number`, below 256."""
    return 3 * number % 256


def png(number: int, width: int = SIDE, height: int = SIDE, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new("L", (width, height), colour(number)).convert(mode).save(stream, "PNG")
    return stream.getvalue()


def noise_png(seed: int, width: int, height: int) -> bytes:
    """One whose file cannot be small."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
        stream, "PNG"
    )
    return stream.getvalue()


def captions(count: int) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [f"{letters[i % 26]} {letters[i // 26]}" for i in range(count)]


def image_folder(folder: Path, count: int, told: Sequence[str] | None = None, kind: str = "jsonl") -> Path:
    """000.png …, with `metadata.<kind>` where captions are told."""
    folder.mkdir(parents=True)
    for i in range(count):
        (folder / f"{i:03}.png").write_bytes(png(i))
    if told is not None:
        rows = [{"file_name": f"{i:03}.png", "text": text} for i, text in enumerate(told)]
        write_rows(folder / f"metadata.{kind}", rows)
    return folder


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_tar(tar: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar, "w") as archive:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return tar


def tars(folder: Path, count: int, per_tar: int, told: Sequence[str] | None = None) -> Path:
    """00.tar, 01.tar, …"""
    for number, start in enumerate(range(0, count, per_tar)):
        members: list[tuple[str, bytes]] = []
        for i in range(start, min(start + per_tar, count)):
            members.append((f"{i:03}.png", png(i)))
            if told is not None:
                members.append((f"{i:03}.txt", told[i].encode()))
        write_tar(folder / f"{number:02}.tar", members)
    return folder


def on_disk(folder: Path, count: int, told: Sequence[str] | None = None) -> Path:
    """As `save_to_disk` writes it."""
    table(count, told).save_to_disk(str(folder))
    return folder


def table(count: int, told: Sequence[str] | None = None) -> datasets.Dataset:
    datasets.disable_progress_bars()
    columns: dict[str, Any] = {"image": [{"bytes": png(i), "path": None} for i in range(count)]}
    columns |= {} if told is None else {"text": list(told)}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def prompt_file(file: Path, told: Sequence[str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(told) + "\n")
    return file


def pixel_teacher(folder: Path, classes: int) -> Path:
    """A UNet with random weights, of grey images of 8 by 8 pixels."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=SIDE,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        add_attention=False,
        norm_num_groups=4,
        num_class_embeds=classes + 1,
    )
    scheduler = DDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False)
    ConsistencyModelPipeline(unet, scheduler).save_pretrained(folder, safe_serialization=True)
    return folder
