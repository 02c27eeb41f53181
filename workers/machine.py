"""What the processes of one machine share: a folder for copies, locks in it, and what is known of files by then."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

FETCHED = Path(tempfile.gettempdir()) / f"fewstep-fetched-{os.getuid()}"
"""Copies of stored files that jobs on this machine read; it may be emptied when none runs."""

WORTH_KEEPING = 100_000_000
"""Bytes from which on a hash is kept: to hash less takes no longer than to look whether that was done."""

SETTLED_SECONDS = 2.0
"""Files that changed so shortly ago may change once more within one tick of the file system's clock."""


@contextmanager
def alone(name: str) -> Iterator[Path]:
    """The path `name` in FETCHED, for one process of this machine at a time; the others wait."""
    FETCHED.mkdir(parents=True, exist_ok=True)
    with FileLock(FETCHED / f"{name}.lock"):
        yield FETCHED / name


def hashed_once(what: str, folder: Path, make: Callable[[], str]) -> str:
    """`make()`'s hash of the files below `folder`, taken once on this machine until one of them changes.

    Args:
        what: tells several hashes of one folder apart.
    """
    if sum(size for _, size, _, _ in _seen(folder)) < WORTH_KEEPING:
        return make()
    with alone(short_name(f"hash {what} {folder.resolve()}")) as file:
        began, seen = time.time(), _seen(folder)
        kept = json.loads(file.read_text()) if file.exists() else {}
        if kept.get("files") == repr(seen):
            return str(kept["hash"])
        made = make()
        newest = max(changed for _, _, _, changed in seen) / 1e9
        if _seen(folder) == seen and newest < began - SETTLED_SECONDS:
            new = file.with_suffix(".new")
            new.write_text(json.dumps({"files": repr(seen), "hash": made}))
            new.replace(file)
        return made


def short_name(of: str) -> str:
    """A file's name for what may be long."""
    return hashlib.sha256(of.encode()).hexdigest()[:32]


def _seen(folder: Path) -> list[tuple[str, int, int, int]]:
    """Of each file: name, bytes, inode, and when it was changed, in ns; nobody can set that back."""
    found = []
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        about = file.stat()
        found.append((file.relative_to(folder).as_posix(), about.st_size, about.st_ino, about.st_ctime_ns))
    return found
