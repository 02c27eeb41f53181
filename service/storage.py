"""The artifact store: a folder on any file system that fsspec knows. Paths are relative to it and stay below it."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from service.errors import InvalidRequest, NotFound

CHUNK = 1 << 20


class Storage:
    """Reads artifacts. Synchronous: callers on an event loop use a thread."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, root = url_to_fs(self.url)
        self._root = str(root).rstrip("/")
        self._is_local = isinstance(self._fs, LocalFileSystem)
        if self._is_local:
            Path(self._root).mkdir(parents=True, exist_ok=True)

    def url_of(self, path: str) -> str:
        """The fsspec URL of a path inside the store."""
        self._locate(path)
        return f"{self.url}/{path}"

    def exists(self, path: str) -> bool:
        return bool(self._fs.exists(self._locate(path)))

    def is_folder(self, path: str) -> bool:
        return bool(self._fs.isdir(self._locate(path)))

    def files(self, folder: str) -> list[str]:
        """Every file below `folder`, as paths inside the store, sorted."""
        found = sorted(str(name) for name in self._fs.find(self._locate(folder)))
        return [name.removeprefix(self._root).lstrip("/") for name in found]

    def size(self, path: str) -> int:
        return int(self._fs.size(self._locate(path)))

    def open(self, path: str) -> IO[bytes]:
        """For reading. NotFound."""
        try:
            return cast("IO[bytes]", self._fs.open(self._locate(path), "rb"))
        except FileNotFoundError as error:
            raise NotFound(f"{path} is not in the artifact store.") from error

    def read(self, path: str) -> bytes:
        with self.open(path) as file:
            return file.read()

    def zip(self, folder: str) -> Iterator[bytes]:
        """A ZIP of `folder`, made while it is sent: never whole in memory, stored without compression."""
        sink = _Sink()
        with zipfile.ZipFile(sink, "w") as archive:
            for path in self.files(folder):
                entry = zipfile.ZipInfo(path.removeprefix(f"{folder.rstrip('/')}/"))
                entry.external_attr = 0o644 << 16
                with self.open(path) as source, archive.open(entry, "w", force_zip64=True) as target:
                    while chunk := source.read(CHUNK):
                        target.write(chunk)
                        yield sink.drain()
        yield sink.drain()

    def _locate(self, path: str) -> str:
        """The file system's own name of a path inside the store. InvalidRequest for any other path."""
        parts = PurePosixPath(path).parts
        wrong = not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path or "://" in path
        full = f"{self._root}/{'/'.join(parts)}"
        if not wrong and self._is_local:
            wrong = not Path(full).resolve().is_relative_to(Path(self._root).resolve())  # a symlink may lead out
        if wrong:
            raise InvalidRequest(
                "This is a path outside the store: give one relative to its root, such as 'teachers/mine'."
            )
        return full


class _Sink(io.RawIOBase):
    """Where the ZIP is written to, and taken from piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: object) -> int:
        data = bytes(cast("bytes", piece))
        self._pieces.append(data)
        return len(data)

    def drain(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data
