"""A dataset of the user's own: where it lies, which reader opens it, and what tells it apart from others."""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from service.data_names import IMAGES
from service.errors import DataInvalid
from service.observations import DatasetOrder
from workers.data.sample import Reader

READERS = {
    "images": "images.Images",
    "webdataset": "webdataset.WebDataset",
    "huggingface": "huggingface.HuggingFace",
    "prompts": "prompts.Prompts",
}
"""By format. A module is imported when a dataset of its format is opened."""

END = 16 * 1024
"""Bytes at the beginning and at the end of each file that tell it apart. The formats keep sizes and sums there."""


@dataclass(frozen=True)
class Dataset:
    """What was ordered, and the local folder (or file) that holds it."""

    order: DatasetOrder
    folder: Path

    @cached_property
    def identity(self) -> str:
        """One hash of all files' names, sizes and ends. A change in the middle of a file that keeps its size is missed:
        hashing all of a large dataset would hold up every start by as long as reading it."""
        digest = hashlib.sha256(self.order.format.encode())
        for file in files_of(self.folder):
            size = file.stat().st_size
            name = file.relative_to(self.folder).as_posix()
            digest.update(f"{name}\0{size}\0".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(END))
                stream.seek(max(size - END, 0))
                digest.update(stream.read(END))
        return digest.hexdigest()

    def reader(self) -> Reader:
        """Raises DataInvalid."""
        module, name = READERS[self.order.format].split(".")
        kind: Callable[[Path], Reader] = getattr(importlib.import_module(f"workers.data.{module}"), name)
        if not self.folder.exists():
            raise DataInvalid(f"there is no {self.folder}; check the dataset's source")
        return kind(self.folder)


def look(folder: Path) -> Dataset:
    """The dataset in `folder`, its format and content found by looking. Raises DataInvalid."""
    suffixes = {file.suffix.lower() for file in files_of(folder)}
    if ".tar" in suffixes:
        format = "webdataset"
    elif suffixes & {".arrow", ".parquet"}:
        format = "huggingface"
    elif suffixes.intersection(IMAGES):
        format = "images"
    elif suffixes & {".txt", ".jsonl"}:
        format = "prompts"
    else:
        raise DataInvalid(
            f"{folder} holds no dataset; give a folder of images, of WebDataset tars, a Hugging Face dataset on disk, "
            "or a .txt or .jsonl file of prompts"
        )
    about: dict[str, object] = {"source": str(folder), "format": format, "content": "nothing", "samples": 1}
    reader = Dataset(DatasetOrder.model_validate(about), folder).reader()
    first = reader.read(0)
    if first.caption is not None:
        about["content"] = "captions"
    elif first.label is not None:
        about["content"] = "classes"
    return Dataset(DatasetOrder.model_validate(about | {"samples": len(reader)}), folder)


def files_of(folder: Path) -> list[Path]:
    """All files below `folder` but hidden ones, sorted; of a file itself, that file."""
    if folder.is_file():
        return [folder]
    found = (file for file in folder.rglob("*") if file.is_file())
    return sorted(file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts))


def some(names: list[str], most: int = 5) -> str:
    """The first few of many names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
