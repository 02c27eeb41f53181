"""The artifact store as the cluster sees it: folders and small files under one fsspec URL."""

import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from service.errors import FewstepError
from service.sources import NEEDED, hub_id
from workers import machine
from workers.fetch import fetched
from workers.hub import snapshot
from workers.progress import Progress

ASSETS = Path(__file__).parent / "assets"

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when there is no space left."""

S3: dict[str, Any] = {
    "config_kwargs": {"connect_timeout": 5, "read_timeout": 30, "retries": {"total_max_attempts": 1}},
}
"""Credentials, region and endpoint come from the AWS_* variables. s3fs itself tries five times, with pauses."""


FIRST_SECONDS, BYTES_PER_SECOND = 60.0, 1_000_000
"""Writing may take so long, and so much longer for each byte. S3 has a say before it takes any (`Expect:
100-continue`), and waiting for that is under none of the timeouts above."""


class StoreLost(Exception):
    """The store, or the hub, did not do what it was asked: not the fault of the job."""


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an fsspec URL, and the URL's path on it. Listings are not kept: other jobs write there too."""
    options = S3 if url.startswith(("s3://", "s3a://")) else {}
    files, path = url_to_fs(url, use_listings_cache=False, **options)
    return files, str(path)


class Store:
    """Paths are relative to the root and written with slashes. Every call raises StoreLost."""

    def __init__(self, url: str) -> None:
        self.fs, self.root = file_system(url)

    @property
    def local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def path(self, path: str) -> str:
        """The path as `fs` understands it."""
        return f"{self.root}/{path}"

    def put_folder(self, folder: Path, path: str) -> None:
        """Copy the content of `folder` to `path`, which must be new; nothing of it stays when that fails."""
        with _lost(path):
            try:
                if self.local:
                    Path(self.path(path)).parent.mkdir(parents=True, exist_ok=True)
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                self.fs.put(f"{folder}/", self.path(path), recursive=True, **self._patience(size))
            except Exception:
                self._discard(path)
                raise

    def put(self, content: bytes, path: str) -> None:
        """Write one file; readers see all of it or none."""
        with _lost(path):
            if not self.local:
                self.fs.pipe_file(self.path(path), content, **self._patience(len(content)))
                return
            target = Path(self.path(path))
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
                new = Path(file.name)
                try:
                    file.write(content)
                    file.flush()
                    new.chmod(0o644)
                    new.replace(target)
                except OSError:
                    new.unlink()
                    raise

    def put_file(self, file: Path, path: str) -> None:
        """Copy one local file to `path`; readers see all of it or none."""
        with _lost(path):
            if not self.local:
                self.fs.put_file(str(file), self.path(path), **self._patience(file.stat().st_size))
                return
            _copy(file, Path(self.path(path)))

    def file(self, path: str) -> Path | None:
        """A local copy of a file, or None when there is none. Not to be written to: on a local file system it is the
        file itself; of another one it is fetched once, for all processes of this machine."""
        with _lost(path):
            if not self.fs.exists(self.path(path)):
                return None
            if self.local:
                return Path(self.path(path))
            here = machine.FETCHED / hashlib.sha256(self.path(path).encode()).hexdigest()
            if not here.exists():
                with tempfile.TemporaryDirectory(prefix="fewstep-") as folder:
                    self.fs.get_file(self.path(path), f"{folder}/file")
                    _copy(Path(folder) / "file", here)
            return here

    def put_json(self, value: dict[str, Any], path: str) -> None:
        self.put(json.dumps(value).encode(), path)

    def get(self, path: str) -> bytes | None:
        """The content of a file, or None when there is none."""
        with _lost(path):
            if not self.fs.exists(self.path(path)):
                return None
            content: bytes = self.fs.cat_file(self.path(path))
            return content

    def has(self, path: str) -> bool:
        """Whether there is a file or a folder."""
        with _lost(path):
            return bool(self.fs.exists(self.path(path)))

    def json(self, path: str) -> dict[str, Any] | None:
        """The content of a JSON file, or None when there is none."""
        content = self.get(path)
        return None if content is None else json.loads(content)

    def _patience(self, size: int) -> dict[str, float]:
        """What a remote file system is told of how long it may take to write `size` bytes."""
        remote = isinstance(self.fs, AsyncFileSystem)
        return {"timeout": FIRST_SECONDS + size / BYTES_PER_SECOND} if remote else {}

    def _discard(self, path: str) -> None:
        """Take away what was begun. A store that fails even in this keeps a folder that nobody names."""
        with suppress(Exception):
            self.fs.rm(self.path(path), recursive=True)


def _copy(file: Path, target: Path) -> None:
    """Whole or not at all, over what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as new:
        try:
            with file.open("rb") as content:
                shutil.copyfileobj(content, new)
            new.flush()
            Path(new.name).chmod(0o644)
            Path(new.name).replace(target)
        except OSError:
            Path(new.name).unlink()
            raise


def local_folder(source: str, needed: Sequence[str] = NEEDED, progress: Progress | None = None) -> Path:
    """A folder to read from: 'builtin:<name>' is a teacher that ships with the package, 'hf://…@commit' a repository of
    the hub, anything else an fsspec URL.

    A folder on a local file system is itself, any other is fetched, once for all processes of this machine; of a
    repository, the files that match `needed`. Raises StoreLost; of the hub TeacherInvalid, or DataInvalid.
    """
    progress = progress or Progress()
    kind, _, name = source.partition(":")
    if kind == "builtin":
        return ASSETS / name / "teacher"
    with _lost(source, f"{machine.FETCHED} or HF_HOME, where workers keep what they fetch"):
        if (asked := hub_id(source)) is not None:
            return snapshot(asked, needed, progress)
        files, path = file_system(source)
        return Path(path) if isinstance(files, LocalFileSystem) else fetched(files, path, progress)


@contextmanager
def _lost(path: str, disk: str = "the store") -> Iterator[None]:
    """File systems raise what their backends raise, so any error of theirs is the store's."""
    try:
        yield
    except FewstepError:
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in FULL
        hint = f"there is no space left in {disk}; make room, the job goes on by itself" if full else str(error)
        raise StoreLost(f"{path}: {type(error).__name__}: {hint}") from error
