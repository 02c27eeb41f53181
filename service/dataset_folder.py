"""A dataset's folder as far as the control plane reads it: names, sizes, texts and headers."""

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, NoReturn

from service.errors import DataInvalid, InvalidRequest, Pointer
from service.folder import CODE, PICKLES
from service.observations import DataContent, DataFormat
from service.storage import Storage

LINE_LIMIT = 100_000
"""Characters of one line of text, such as a caption with its file name."""
JSON_LIMIT = 10_000_000
"""Bytes of a file of JSON."""
CLASS_LIMIT = 10_000
NAME_LIMIT = 100
"""Characters of the name of a class."""


@dataclass(frozen=True)
class Facts:
    """What a dataset's folder says of itself.

    Attributes:
        samples: those that can be used, as far as names and headers tell.
        bytes: of all files.
        classes: their names, by label; also where there are captions as well.
    """

    format: DataFormat
    content: DataContent
    samples: int
    bytes: int
    classes: list[str] | None = None


def refuse(detail: str) -> NoReturn:
    raise DataInvalid(detail, [Pointer("/source", detail)])


def some(names: Sequence[str]) -> str:
    """A few of many names, and how many more there are."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def class_names(found: set[str]) -> list[str] | None:
    """By label: names that are numbers are labels themselves, others count in their order. None without any."""
    if not found:
        return None
    if len(found) > CLASS_LIMIT:
        refuse(f"It has {len(found):,} classes, where {CLASS_LIMIT:,} is the most: are they captions?")
    longest = max(found, key=len)
    if len(longest) > NAME_LIMIT:
        refuse(f"It has a class called {longest[:NAME_LIMIT]}…, which is too long for a name: is it a caption?")
    if not all(name.isascii() and name.isdigit() for name in found):
        return sorted(found)
    largest = max(map(int, found))
    if largest >= CLASS_LIMIT:
        refuse(f"It has a class number {largest}, where {CLASS_LIMIT - 1:,} is the last: count classes from 0.")
    return [str(label) for label in range(largest + 1)]


class DataFolder(ABC):
    """Where a dataset's files are read from.

    Attributes:
        files: bytes of each file by its path inside the folder, without hidden ones.
        size: bytes of all that a job reads of it, or may.
    """

    def __init__(self, files: Mapping[str, int]) -> None:
        self.files = {name: size for name, size in sorted(files.items()) if not _is_hidden(name)}
        self.size = sum(self.files.values())

    def of(self, *suffixes: str) -> list[str]:
        """The files with one of these suffixes, in any case, sorted."""
        return [file for file in self.files if file.lower().endswith(suffixes)]

    @abstractmethod
    def open(self, file: str) -> AbstractContextManager[IO[bytes]]:
        """For reading, seekable."""

    def json(self, file: str, fix: str) -> dict[str, Any]:
        """A JSON object. `fix`: what to do where there is none."""
        if file not in self.files:
            refuse(f"{file} is missing: {fix}.")
        if self.files[file] > JSON_LIMIT:
            refuse(f"{file} has over {JSON_LIMIT:,} bytes: {fix}.")
        with self.open(file) as source:
            return json_object(source.read(), file, fix)

    def lines(self, file: str) -> Iterator[str]:
        """Of a text in UTF-8, with their ends."""
        with self.open(file) as source:
            text = io.TextIOWrapper(source, encoding="utf-8-sig")
            try:
                number = 0
                while line := text.readline(LINE_LIMIT):
                    number += 1
                    if len(line) == LINE_LIMIT:
                        refuse(f"{file} has over {LINE_LIMIT:,} characters in line {number}: write a line for each.")
                    yield line
            except UnicodeDecodeError:
                refuse(f"{file} is not text in UTF-8: save it as UTF-8.")
            finally:
                text.detach()


class StoredData(DataFolder):
    """A folder in the store. DataInvalid where there is none, or it holds pickles or code."""

    def __init__(self, store: Storage, path: str) -> None:
        self._store = store
        try:
            self._path = str(PurePosixPath(path))
            if store.is_folder(path):
                super().__init__(store.sizes(path))
            elif store.exists(path):
                refuse(f"'{path}' is a file; put it into a folder of its own and give the folder's path.")
            else:
                refuse(f"'{path}' is not a folder in the store; put the dataset there and give its path.")
        except InvalidRequest as error:
            refuse(error.detail)
        for file in self.files:
            if file.lower().endswith(PICKLES):
                refuse(f"{file} is a pickle, which can run code when it is loaded: remove it.")
            if file.lower().endswith(CODE):
                refuse(f"{file} is code, which a dataset may not bring: remove it.")

    def open(self, file: str) -> AbstractContextManager[IO[bytes]]:
        return self._store.open(f"{self._path}/{file}")


def json_object(content: bytes | str, where: str, fix: str) -> dict[str, Any]:
    """DataInvalid, naming `where` it stands, for anything but a JSON object."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        refuse(f"{where} is not valid JSON: {fix}.")
    if not isinstance(found, dict):
        refuse(f"{where} does not hold a JSON object: {fix}.")
    return found


def _is_hidden(file: str) -> bool:
    """What systems leave beside one's files."""
    return any(part.startswith(".") or part in ("__MACOSX", "Thumbs.db") for part in PurePosixPath(file).parts)
