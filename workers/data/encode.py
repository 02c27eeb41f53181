"""A dataset becomes what networks work on, once: latents or images, classes, and captions as their encoders give them.

That is done in chunks, each kept in the store under what it depends on, as pairs are: a run that is stopped goes on
with the next chunk, jobs with one teacher share them, and several workers make different chunks at the same time.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from service.errors import DataInvalid
from service.status import Wish
from workers.artifact import Model
from workers.data.buckets import sizes_for
from workers.data.chunks import Chunks, Part, write_chunk
from workers.data.dataset import Dataset, some
from workers.data.pixels import pixels
from workers.data.sample import Corrupt, Reader
from workers.host import Host
from workers.models.backbone import ENCODED_AT_ONCE
from workers.pipeline_model import PipelineModel
from workers.progress import Life

CHUNK = 256
"""Samples; at 1024 by 1024 pixels some 0.3 GB of latents and prompts."""

FORMAT = 2
"""Raised with every change of what a chunk holds."""

IMAGES_AT_ONCE = 4
"""Through the VAE, which takes gigabytes for a large one."""

SHOWN = 500
"""Of the captions, the first are those that a student is previewed and judged by."""

ROW = "row."
"""Before the name of a condition's row, in a chunk."""


@dataclass(frozen=True)
class CaptionRows:
    """The rows of the captions' conditions, see `workers.models.conditions.Rows`."""

    chunks: Chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def rows(self, places: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        found = self.chunks.rows(places, [ROW + name for name in names])
        return {name.removeprefix(ROW): rows for name, rows in found.items()}


def encode(
    dataset: Dataset, model: Model, host: Host, images: bool, identity: str, buckets: bool = False
) -> Chunks | Wish:
    """Collective. All chunks, or the wish that stopped their making.

    Args:
        model: the teacher.
        images: whether they are wanted, and not captions alone.
        identity: of the teacher's weights.
        buckets: whether images are brought to the nearest of several sizes, and not all to the teacher's.

    Raises:
        DataInvalid: the dataset is broken, has not what this teacher needs, or nothing in it can be used.
        TeacherInvalid: its network takes images of one size alone.
    """
    encoder = Encoder(dataset, model, images, buckets)
    if images:
        sizes = ", ".join(f"{width} by {height}" for height, width in encoder.sizes)
        among = "the nearest of " if buckets else ""
        host.log("info", f"Images are scaled to cover {among}{sizes} pixels, and cropped to their centre.")
    wanted = f"images={encoder.sizes if images else None} classes={encoder.names}"
    about = f"data v{FORMAT} {dataset.identity} teacher={identity} {wanted} size={CHUNK}"
    numbers, life = range(-(-len(encoder.reader) // CHUNK)), Life(host)

    def chunk(number: int) -> Path:
        return host.cached_file(f"{about} chunk={number}", lambda file: encoder.write(number, file, life.sign))

    with model.ready() if isinstance(model, PipelineModel) else nullcontext():
        for first in range(0, len(numbers), host.world_size):
            if (wish := host.wish()) is not Wish.RUN:
                return wish
            if (mine := first + host.rank) < len(numbers):
                chunk(mine)
            life.sign()
            done = min(len(encoder.reader), (first + host.world_size) * CHUNK)
            host.log("info", f"{done} of {len(encoder.reader)} samples of the dataset are encoded.")
        host.wish()  # nobody reads before all have written
        chunks = Chunks([chunk(number) for number in numbers], SHOWN if model.text else 0)
    tell_left_out(chunks, len(encoder.reader), host)
    if buckets and images:
        host.log("info", f"Images of each size: {', '.join(f'{n} of {size}' for size, n in chunks.sizes.items())}.")
    return chunks


def tell_left_out(chunks: Chunks, samples: int, host: Host) -> None:
    """Name what could not be used. Raises DataInvalid where that is everything."""
    named = some([f"{key} ({why})" for key, why in chunks.left_out])
    if not len(chunks):
        raise DataInvalid(f"none of the dataset's {samples} samples can be used: {named}")
    if chunks.left_out:
        host.log("warning", f"{len(chunks.left_out)} of the dataset's {samples} samples are left out: {named}.")


class Encoder:
    """Makes chunks of one dataset for one teacher. `sizes` are those that images are brought to."""

    def __init__(self, dataset: Dataset, model: Model, images: bool, buckets: bool = False) -> None:
        self.model, self.images = model, images
        _, height, width = model.image_size
        self.sizes = sizes_for(model) if buckets else [(height, width)]
        order = dataset.order
        self.captions = model.text
        self.classes = None if model.text else model.num_classes
        if self.captions and order.content != "captions" and order.format != "prompts":
            raise DataInvalid("the teacher is asked for images by prompts, and the dataset has no captions; add them")
        if self.classes is not None and order.content == "nothing":
            raise DataInvalid("the teacher is asked for images by class, and the dataset has no classes; add them")
        if images and order.format == "prompts":
            raise DataInvalid("the method learns from images, and the dataset holds prompts alone; use one with images")
        if images and model.image_size[0] not in (1, 3):
            raise DataInvalid(f"images have 1 or 3 channels, and the teacher's have {model.image_size[0]}")
        self.reader: Reader = dataset.reader()
        self.names: list[str] = []
        if self.classes is not None:
            self.names = order.classes or self.reader.classes()

    def write(self, number: int, file: Path, before_group: Callable[[], None]) -> None:
        """Make chunk `number` in `file`.

        Args:
            before_group: called before each few samples that go through the encoders together.
        """
        parts: dict[str, list[Part]] = {}
        left_out: list[tuple[str, str]] = []
        indices = range(number * CHUNK, min((number + 1) * CHUNK, len(self.reader)))
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
            for start in range(0, len(indices), ENCODED_AT_ONCE):
                before_group()
                group = indices[start : start + ENCODED_AT_ONCE]
                good: dict[str, list[Decoded]] = {}
                for i, found in zip(group, threads.map(self._decoded, group), strict=True):
                    if isinstance(found, Corrupt):
                        left_out.append((self.reader.key(i), str(found)))
                    else:
                        good.setdefault(found.size, []).append(found)
                for size, samples in good.items():
                    parts.setdefault(size, []).append(self._encoded(samples))
        write_chunk(file, {size: joined(several) for size, several in parts.items()}, left_out)

    def _decoded(self, index: int) -> "Decoded | Corrupt":
        try:
            sample = self.reader.read(index)
            if self.captions and not sample.caption:
                raise Corrupt("it has no caption")
            label = None if self.classes is None else self._number(sample.label)
            image = None
            if self.images:
                if sample.image is None:
                    raise Corrupt("it has no image")
                image = pixels(sample.image, self.model.image_size[0], self.sizes)
        except Corrupt as error:
            return error
        return Decoded(image, sample.caption if self.captions else None, label)

    def _number(self, name: str | None) -> int:
        """Of a class: a name that is a number is that number, others count in the order of the dataset's classes."""
        if name is None:
            raise Corrupt("it has no class")
        if not name.isdecimal() and name not in self.names:
            raise Corrupt(f"its class {name!r} is none of the dataset's")
        number = int(name) if name.isdecimal() else self.names.index(name)
        if self.classes is not None and number >= self.classes:
            raise DataInvalid(
                f"the dataset's class {name!r} has number {number}, and the teacher knows 0 to {self.classes - 1}"
            )
        return number

    def _encoded(self, good: list["Decoded"]) -> Part:
        """Of samples whose images are of one size."""
        captions = [sample.caption for sample in good if sample.caption is not None]
        return Part(dict(self._tensors(good, captions)), captions)

    def _tensors(self, good: list["Decoded"], captions: list[str]) -> Iterator[tuple[str, Tensor]]:
        images = [sample.image for sample in good if sample.image is not None]
        if images:
            parts = torch.stack(images).split(IMAGES_AT_ONCE)
            yield "images", torch.cat([self.model.encode(part.to(self.model.device)).cpu() for part in parts])
        labels = [sample.label for sample in good if sample.label is not None]
        if labels:
            yield "labels", torch.tensor(labels)
        if captions:
            assert isinstance(self.model, PipelineModel)
            rows = self.model.encode_prompts(captions)
            yield from ((ROW + name, row.cpu()) for name, row in rows.items())


@dataclass(frozen=True)
class Decoded:
    """What is wanted of one sample: image [C, H, W] in [-1, 1], caption, class."""

    image: Tensor | None
    caption: str | None
    label: int | None

    @property
    def size(self) -> str:
        """Width and height of the image; nothing where none is wanted."""
        return "" if self.image is None else f"{self.image.shape[2]}x{self.image.shape[1]}"


def joined(parts: list[Part]) -> Part:
    """One after the other."""
    tensors = {name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors}
    return Part(tensors, [caption for part in parts for caption in part.captions])
