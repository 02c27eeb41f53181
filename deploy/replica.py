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
from workers.artifact import Student, load_student
from workers.store import local_folder


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
        self._teacher: Student | None = None
        self._student = load_student(local_folder(student_url)).to(self._device)
        self._warm_up(self._student, max_batch)

    async def ready(self) -> None:
        """Answers once the student is loaded and warm."""

    async def generate(
        self, teacher: bool, labels: list[int] | None, seeds: list[int], steps: int, guidance: float | None
    ) -> list[str]:
        """One PNG in base64 per seed."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._generate, teacher, labels, seeds, steps, guidance)

    def _generate(
        self, teacher: bool, labels: list[int] | None, seeds: list[int], steps: int, guidance: float | None
    ) -> list[str]:
        model = self._loaded_teacher() if teacher else self._student
        classes = None if labels is None else torch.tensor(labels)
        return encode(model.generate(classes, seeds, steps, guidance))

    def _loaded_teacher(self) -> Student:
        if self._teacher is None:
            if self._teacher_source is None:
                raise ValueError("this endpoint serves no teacher")
            self._teacher = load_student(local_folder(self._teacher_source)).to(self._device)
        return self._teacher

    def _warm_up(self, model: Student, batch: int) -> None:
        for size in (1, batch):
            labels = None if model.num_classes is None else torch.zeros(size, dtype=torch.int64)
            encode(model.generate(labels, list(range(size)), model.steps[0]))


def build(args: dict[str, Any]) -> serve.Application:
    """Serve's import path; `args` are those of `Replica`."""
    return serve.deployment(Replica).bind(**args)
