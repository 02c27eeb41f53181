"""The artifact store: a folder on any file system that fsspec knows. Paths are relative to it and stay below it."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from service.errors import FewstepError, InvalidRequest, NotFound, StoreUnavailable

CHUNK = 1 << 20

S3: dict[str, Any] = {
    "config_kwargs": {"connect_timeout": 3, "read_timeout": 5, "retries": {"total_max_attempts": 1}},
}
"""Credentials, region and endpoint come from the AWS_* variables."""
S3_TRIES = 2
"""A store that hangs is given up after `S3_TRIES` times `read_timeout` seconds."""


class Storage:
    """Reads artifacts. Synchronous: callers on an event loop use a thread. Every call may raise StoreUnavailable."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._is_s3 = self.url.startswith(("s3://", "s3a://"))
        self._fs, root = url_to_fs(self.url, use_listings_cache=False, **(S3 if self._is_s3 else {}))
        if self._is_s3:
            self._fs.retries = S3_TRIES
        self._root = str(root).rstrip("/")
        self._is_local = isinstance(self._fs, LocalFileSystem)
        if self._is_local:
            Path(self._root).mkdir(parents=True, exist_ok=True)

    def url_of(self, path: str) -> str:
        """The fsspec URL of a path inside the store."""
        self._locate(path)
        return f"{self.url}/{path}"

    def create(self) -> None:
        """Make the root, and on S3 the bucket that it is in; what is there already stays as it is."""
        with self._asking("the store's root"):
            self._fs.makedirs(self._root, exist_ok=True)

    def check(self) -> None:
        """Ask the store for its root: StoreUnavailable, saying what is wrong, when it cannot be used."""
        with self._asking("the store's root"):
            if self._is_s3:
                bucket, _, prefix = self._root.partition("/")
                self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
            else:
                self._fs.info(self._root)

    def exists(self, path: str) -> bool:
        full = self._locate(path)
        with self._asking(path):
            return bool(self._fs.exists(full))

    def is_folder(self, path: str) -> bool:
        full = self._locate(path)
        with self._asking(path):
            return bool(self._fs.isdir(full))

    def files(self, folder: str) -> list[str]:
        """Every file below `folder`, as paths inside the store, sorted."""
        full = self._locate(folder)
        with self._asking(folder):
            found = sorted(str(name) for name in self._fs.find(full))
        return [name.removeprefix(self._root).lstrip("/") for name in found]

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every file below `folder`, by its path inside the folder, sorted; from one listing."""
        full = self._locate(folder)
        with self._asking(folder):
            found = sorted((str(name), int(about["size"])) for name, about in self._fs.find(full, detail=True).items())
        return {name.removeprefix(full).lstrip("/"): size for name, size in found}

    def size(self, path: str) -> int:
        """NotFound."""
        full = self._locate(path)
        with self._asking(path):
            return int(self._fs.size(full))

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """For reading. NotFound."""
        full = self._locate(path)
        with self._asking(path), self._fs.open(full, "rb") as file:
            yield cast("IO[bytes]", file)

    def read(self, path: str) -> bytes:
        """NotFound."""
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

    @contextmanager
    def _asking(self, path: str) -> Iterator[None]:
        """File systems raise what their backends raise; whatever it is, it means that the store did not answer."""
        try:
            yield
        except FewstepError:
            raise
        except FileNotFoundError as error:
            raise NotFound(f"{path} is not in the artifact store.") from error
        except Exception as error:
            detail = f"The artifact store did not give {path} ({type(error).__name__}); try again in a moment."
            raise StoreUnavailable(detail) from error

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
