"""Folders of other file systems as folders of this machine: fetched once, for all processes and later attempts."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec import AbstractFileSystem

from workers import machine
from workers.progress import Progress

PIECE = 16 * 1024 * 1024
"""Bytes asked for at once; what was fetched of a file stands when a process dies, and is not asked for again."""
AT_ONCE = 16
"""Files; a folder may hold a million small ones."""
VERSIONS = ("ETag", "etag", "md5Hash", "md5", "checksum", "mtime", "LastModified", "last_modified", "created")
"""What file systems say of a file that tells its content from others."""


def fetched(files: AbstractFileSystem, path: str, progress: Progress) -> Path:
    """A copy of the folder at `path`, not to be written to. It is known by all files' names, sizes and versions, so a
    folder that was changed is another one.

    Raises whatever the file system raises, and OSError where this machine's disk is full.
    """
    listed = files.find(path, detail=True)
    listing = {name: about for name, about in sorted(listed.items()) if about["type"] == "file"}
    versions = [
        [name, about["size"], *(str(about[key]) for key in VERSIONS if key in about)] for name, about in listing.items()
    ]
    with machine.alone(machine.short_name(repr(["folder", type(files).__name__, path, versions]))) as folder:
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            partial.mkdir(exist_ok=True)
            progress.total += sum(about["size"] for about in listing.values())

            def fetch(name: str) -> None:
                _fetch(files, name, listing[name]["size"], partial / _inside(name, path), progress)

            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(fetch, listing))
            partial.rename(folder)
    return folder


def forget(folder: Path) -> None:
    """Remove a copy; a folder that is none stays."""
    if folder.is_relative_to(machine.FETCHED):
        shutil.rmtree(folder, ignore_errors=True)


def _inside(name: str, path: str) -> PurePosixPath:
    """Of a listed file, its path below the folder. Object stores allow names that lead out of it."""
    inside = PurePosixPath(name.removeprefix(path).lstrip("/"))
    if ".." in inside.parts:
        raise ValueError(f"{name} is no name of a file in a folder")
    return inside


def _fetch(files: AbstractFileSystem, name: str, size: int, target: Path, progress: Progress) -> None:
    """One file, from where an earlier attempt left it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("ab") as file:
        at = file.tell()
        progress.add(at)
        while at < size:
            piece: Any = files.cat_file(name, start=at, end=min(at + PIECE, size))
            if not piece:
                raise OSError(f"{name} has ended after {at} of {size} bytes")
            file.write(piece)
            at += len(piece)
            progress.add(len(piece))
