"""A teacher's folder as far as it is read before it is trusted: names, JSON and the headers of weights."""

import hashlib
import json
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import IO, Any, NoReturn

from service.errors import Pointer, TeacherInvalid

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh")
HEADER_LIMIT = 10_000_000
"""Bytes of a safetensors header; the largest published networks need under one megabyte."""
POINTER = b"version https://git-lfs"
CONVERT = (
    "open the checkpoint with the from_single_file() of its pipeline's class, such as StableDiffusionPipeline, and "
    "save it with save_pretrained(folder, safe_serialization=True)"
)

Shapes = dict[str, list[int]]
"""By the names of the tensors."""


def refuse(detail: str) -> NoReturn:
    raise TeacherInvalid(detail, [Pointer("/source", detail)])


class Folder(ABC):
    """Where a teacher's files are read from.

    Attributes:
        files: those that count, as paths inside the folder.
        beside: all that are there.
        digest: of all weights that were read.
    """

    def __init__(self, files: set[str], beside: set[str]) -> None:
        self.files, self.beside = files, beside
        self.digest = hashlib.sha256()

    @abstractmethod
    def read(self, file: str) -> bytes:
        """A small file's content."""

    @abstractmethod
    def header(self, file: str) -> tuple[bytes, int]:
        """The JSON at the start of a safetensors file, and how many bytes follow it; the file goes into the digest."""

    def read_header(self, file: str, source: IO[bytes]) -> tuple[bytes, int]:
        """`header` of a file that is open: all of it is read, for the digest."""
        start = source.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        header = source.read(length if length <= HEADER_LIMIT else len(POINTER))
        refuse_pointer(file, start + header)
        self.digest.update(start + header)
        payload = 0
        while chunk := source.read(1 << 20):
            self.digest.update(chunk)
            payload += len(chunk)
        return header, payload

    def json(self, file: str, fix: str) -> dict[str, Any]:
        """A JSON object that names no code."""
        if file not in self.files:
            refuse(f"{file} is missing: {fix}.")
        read = self.read(file)
        refuse_pointer(file, read)
        try:
            content = json.loads(read)
        except (ValueError, RecursionError):
            refuse(f"{file} is not valid JSON: {fix}.")
        if not isinstance(content, dict):
            refuse(f"{file} does not hold a JSON object: {fix}.")
        if "auto_map" in content:
            refuse(f"{file} has an auto_map, which names code: use a model of the libraries' own classes.")
        return content

    def weights(self, part: str, stem: str) -> Shapes:
        """All weights of one model, that is, those that its library would load.

        Args:
            part: the model's folder.
            stem: what its library calls the file: `<stem>.safetensors`, or an index of shards.
        """
        whole, index = f"{part}/{stem}.safetensors", f"{part}/{stem}.safetensors.index.json"
        files = {whole} & self.files
        if index in self.files:
            files |= self._shards(part, index)
        if not files:
            refuse(f"{whole} is missing: {self._instead(part, stem)}.")
        shapes: Shapes = {}
        for file in sorted(files):
            shapes |= self.shapes(file)
        return shapes

    def _instead(self, part: str, stem: str) -> str:
        """What there is in the place of weights, and the fix."""
        again = "save_pretrained(folder, safe_serialization=True)"
        found = sorted(file for file in self.beside if file.startswith(f"{part}/"))
        for file in found:
            variant = re.fullmatch(rf"{re.escape(part)}/{stem}\.(\w+)(?:-\d+-of-\d+)?\.safetensors", file)
            if variant:
                return (
                    f"there is {file} alone, a variant; open the pipeline with variant='{variant[1]}' and save it "
                    f"without one, by pipeline.{again}"
                )
        pickles = [file for file in found if file.lower().endswith(PICKLES)]
        if pickles:
            return f"{pickles[0]} is a pickle, which is not opened here; open the pipeline, save it by pipeline.{again}"
        return "save the weights with safe_serialization=True, and without a variant"

    def _shards(self, part: str, index: str) -> set[str]:
        fix = "save the weights again with safe_serialization=True"
        shards = self.json(index, fix).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            refuse(f"{index} has no weight_map: {fix}.")
        for shard in sorted(set(map(str, shards.values()))):
            if f"{part}/{shard}" not in self.files or not shard.endswith(".safetensors"):
                refuse(f"{index} names {shard}, which is not in {part}/: copy all of its files.")
        return {f"{part}/{shard}" for shard in shards.values()}

    def shapes(self, file: str) -> Shapes:
        """From the header of a safetensors file."""
        header, payload = self.header(file)
        try:
            entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
            shapes = {name: [int(n) for n in entry["shape"]] for name, entry in entries.items()}
            end = max(int(entry["data_offsets"][1]) for entry in entries.values())
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            refuse(f"{file} is not a safetensors file: save the weights with safe_serialization=True.")
        if payload != end:
            refuse(f"{file} is damaged ({payload} bytes of weights, where its header says {end}): copy it again.")
        return shapes


def refuse_pointer(file: str, content: bytes) -> None:
    """TeacherInvalid for what git leaves in the place of a large file where git-lfs was not installed."""
    if content.startswith(POINTER):
        refuse(f"{file} is a pointer of git-lfs, not the file: run `git lfs install` and `git lfs pull`, copy again.")


def sizes(*values: Any) -> Iterator[bool]:
    """Whether each is a length that images or networks have."""
    return (isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= 65_536 for v in values)
