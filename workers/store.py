"""The artifact store as the cluster sees it: folders and small files under one fsspec URL."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

ASSETS = Path(__file__).parent / "assets"


class StoreLost(Exception):
    """The store did not do what it was asked: not the fault of the job."""


class Store:
    """Paths are relative to the root and written with slashes. Every call raises StoreLost."""

    def __init__(self, url: str) -> None:
        options = {"auto_mkdir": True} if url.startswith("file:") or "://" not in url else {}
        # Other machines write beside us: what a folder held a moment ago is not to be remembered.
        self.fs, self.root = url_to_fs(url, use_listings_cache=False, **options)

    @property
    def local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def path(self, path: str) -> str:
        """The path as `fs` understands it."""
        return f"{self.root}/{path}"

    def put_folder(self, folder: Path, path: str) -> None:
        """Copy the content of `folder` to `path`, which must be new."""
        with _lost(path):
            self.fs.put(f"{folder}/", self.path(path), recursive=True)

    def put(self, content: bytes, path: str) -> None:
        """Write one file; readers see all of it or none."""
        with _lost(path):
            if not self.local:
                self.fs.pipe_file(self.path(path), content)
                return
            target = Path(self.path(path))
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
                file.write(content)
            Path(file.name).chmod(0o644)
            Path(file.name).replace(target)

    def put_json(self, value: dict[str, Any], path: str) -> None:
        self.put(json.dumps(value).encode(), path)

    def json(self, path: str) -> dict[str, Any] | None:
        """The content of a JSON file, or None when there is none."""
        with _lost(path):
            if not self.fs.exists(self.path(path)):
                return None
            content: dict[str, Any] = json.loads(self.fs.cat_file(self.path(path)))
            return content


def local_folder(source: str) -> Path:
    """A folder to read from: 'builtin:<name>' is a teacher that ships with the package, else an fsspec URL.

    A folder on a local file system is itself, any other is downloaded. Raises StoreLost.
    """
    kind, _, name = source.partition(":")
    if kind == "builtin":
        return ASSETS / name / "teacher"
    with _lost(source):
        files, path = url_to_fs(source, use_listings_cache=False)
        if isinstance(files, LocalFileSystem):
            return Path(path)
        target = Path(tempfile.mkdtemp(prefix="fewstep-"))
        files.get(f"{path}/", str(target), recursive=True)
        return target


@contextmanager
def _lost(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreLost(f"{path}: {error}") from error
