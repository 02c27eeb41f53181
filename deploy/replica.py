"""The Ray Serve deployment of one endpoint: the student, and its teacher once somebody asks for it."""

import asyncio
import base64
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image
from ray import serve

from deploy.node_address import listen_there_only
from workers.artifact import Model, load_student
from workers.store import local_folder

Subjects = list[int] | list[str] | None
"""A class or a prompt for each image; None for an unconditional model."""


def encode(images_BCHW: torch.Tensor) -> list[str]:
    """Images in [-1, 1] as PNGs in base64; one channel is grey, three are RGB."""
    bytes_BHWC = (images_BCHW.float() * 127.5 + 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    encoded = []
    for image in bytes_BHWC:
        buffer = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, "PNG", compress_level=1)
        encoded.append(base64.b64encode(buffer.getvalue()).decode())
    return encoded


class Replica:
    """Generates batches, one after another, in a thread: the event loop stays free for Serve."""

    def __init__(self, student_url: str, teacher_source: str | None, max_batch: int) -> None:
        listen_there_only()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Half the cores: the gateway and everything else on the machine live on the others.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
        self._thread = ThreadPoolExecutor(1, "generate")
        self._teacher_source = teacher_source
        self._teacher: Model | None = None
        self._student = load_student(local_folder(student_url)).to(self._device)
        self._warm_up(max_batch)

    async def ready(self) -> None:
        """Answers once the student is loaded and warm."""

    async def generate(
        self, teacher: bool, asked: Subjects, seeds: list[int], steps: int, guidance: float | None
    ) -> list[str]:
        """One PNG in base64 per seed."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._generate, teacher, asked, seeds, steps, guidance)

    def _generate(
        self, teacher: bool, asked: Subjects, seeds: list[int], steps: int, guidance: float | None
    ) -> list[str]:
        model = self._loaded_teacher() if teacher else self._student
        subjects: Any = asked if asked is None or model.text else torch.tensor(asked)
        images = []
        for first in range(0, len(seeds), model.batch):
            part = slice(first, first + model.batch)
            some = None if subjects is None else subjects[part]
            images += encode(model.generate(some, seeds[part], steps, guidance))
        return images

    def _loaded_teacher(self) -> Model:
        if self._teacher is None:
            if self._teacher_source is None:
                raise ValueError("this endpoint serves no teacher")
            self._teacher = load_student(local_folder(self._teacher_source)).to(self._device)
        return self._teacher

    def _warm_up(self, max_batch: int) -> None:
        model = self._student
        for size in (1, min(max_batch, model.batch)):
            self._generate(False, _any(model, size), list(range(size)), model.steps[0], None)


def _any(model: Model, count: int) -> Subjects:
    if model.text:
        return ["warm-up"] * count
    return None if model.num_classes is None else [0] * count


def build(args: dict[str, Any]) -> serve.Application:
    """Serve's import path; `args` are those of `Replica`."""
    return serve.deployment(Replica).bind(**args)
