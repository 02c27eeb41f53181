"""A teacher's folder in the store as far as it is read before it is trusted: names, JSON and the headers of weights."""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NoReturn

from service.errors import InvalidRequest, Pointer, TeacherInvalid
from service.storage import Storage

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh")
HEADER_LIMIT = 10_000_000
"""Bytes of a safetensors header; the largest published networks need under one megabyte."""

Shapes = dict[str, list[int]]
"""By the names of the tensors."""


def refuse(detail: str) -> NoReturn:
    raise TeacherInvalid(detail, [Pointer("/source", detail)])


class Folder:
    """TeacherInvalid for a folder that is not there, or holds pickles or code.

    Attributes:
        files: paths inside the folder.
        digest: of all weights that were read.
    """

    def __init__(self, store: Storage, path: str) -> None:
        self._store = store
        try:
            store.url_of(path)
            self._path = str(PurePosixPath(path))
            if not store.is_folder(self._path):
                refuse(f"'{self._path}' is not a folder in the store; put the teacher there and give its path.")
            self.files = {file.removeprefix(f"{self._path}/") for file in store.files(self._path)}
        except InvalidRequest as error:
            raise TeacherInvalid(error.detail, [Pointer("/source", error.detail)]) from error
        for file in sorted(self.files):
            if file.lower().endswith(PICKLES):
                refuse(
                    f"{file} is a pickle, which can run code when it is loaded: convert it to safetensors, remove it."
                )
            if file.lower().endswith(CODE):
                refuse(f"{file} is code, which a teacher may not bring: remove it.")
        self.digest = hashlib.sha256()

    def json(self, file: str, fix: str) -> dict[str, Any]:
        """A JSON object that names no code."""
        if file not in self.files:
            refuse(f"{file} is missing: {fix}.")
        try:
            content = json.loads(self._store.read(f"{self._path}/{file}"))
        except (ValueError, RecursionError):
            refuse(f"{file} is not valid JSON: {fix}.")
        if not isinstance(content, dict):
            refuse(f"{file} does not hold a JSON object: {fix}.")
        if "auto_map" in content:
            refuse(f"{file} has an auto_map, which names code: use a model of the libraries' own classes.")
        return content

    def weights(self, part: str, stem: str) -> Shapes:
        """All weights of one model, read through for the digest.

        Args:
            part: the model's folder.
            stem: what its library calls the file: `<stem>.safetensors`, or an index of shards.
        """
        fix = "save the weights with safe_serialization=True, and without a variant"
        whole, index = f"{part}/{stem}.safetensors", f"{part}/{stem}.safetensors.index.json"
        if index in self.files:
            self._check_shards(part, index, fix)
        elif whole not in self.files:
            refuse(f"{whole} is missing: {fix}.")
        shapes: Shapes = {}
        for file in sorted(self.files):
            if file.startswith(f"{part}/") and file.endswith(".safetensors"):
                shapes |= self._read_weights(file)
        return shapes

    def _check_shards(self, part: str, index: str, fix: str) -> None:
        shards = self.json(index, fix).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            refuse(f"{index} has no weight_map: {fix}.")
        for shard in sorted(set(map(str, shards.values()))):
            if f"{part}/{shard}" not in self.files or not shard.endswith(".safetensors"):
                refuse(f"{index} names {shard}, which is not in {part}/: copy all of its files.")

    def _read_weights(self, file: str) -> Shapes:
        """From a safetensors header; the whole file goes through the digest."""
        with self._store.open(f"{self._path}/{file}") as source:
            start = source.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            header = source.read(length) if length <= HEADER_LIMIT else b""
            self.digest.update(start + header)
            payload = 0
            while chunk := source.read(1 << 20):
                self.digest.update(chunk)
                payload += len(chunk)
        try:
            entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
            shapes = {name: [int(n) for n in entry["shape"]] for name, entry in entries.items()}
            end = max(int(entry["data_offsets"][1]) for entry in entries.values())
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            refuse(f"{file} is not a safetensors file: save the weights with safe_serialization=True.")
        if payload != end:
            refuse(f"{file} is damaged ({payload} bytes of weights, where its header says {end}): copy it again.")
        return shapes


def sizes(*values: Any) -> Iterator[bool]:
    """Whether each is a length that images or networks have."""
    return (isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= 65_536 for v in values)
