"""Signs of life of what takes long before the first step: fetching, hashing, encoding and making pairs."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TypeVar

from workers.host import Host

T = TypeVar("T")

LOOK_SECONDS = 2.0
"""Between two looks at how far a piece of work is."""
SIGN_SECONDS = 15.0
"""Between two signs of life; a job without any is stopped after minutes."""


class Life:
    """Signs of it, at most one in `SIGN_SECONDS`."""

    def __init__(self, host: Host) -> None:
        self._host, self._last = host, time.monotonic()

    def sign(self) -> None:
        if time.monotonic() - self._last >= SIGN_SECONDS:
            self._host.phase("training")  # a line of the log would be none
            self._last = time.monotonic()


class Progress:
    """How far a piece of work is, in bytes. Written by the threads that do it.

    Attributes:
        total: of all that is to be done; 0 where nobody knows.
    """

    def __init__(self) -> None:
        self.total = 0
        self._done = 0
        self._growing: list[Path] = []
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size

    def watch(self, folder: Path) -> None:
        """Count the files in `folder`, for work that says nothing itself."""
        self._growing.append(folder)

    @property
    def done(self) -> int:
        return self._done + sum(map(_size, self._growing))


def _size(folder: Path) -> int:
    """Of the files in it, which others may take away at any moment."""
    total = 0
    for file in folder.glob("*"):
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            continue
    return total


def waited(work: Callable[[Progress], T], total: Callable[[int], int], tell: Callable[[int, int], None]) -> T:
    """What `work` gives, or raises; collective, if `total` is. It is done in a thread of its own.

    Args:
        total: the sum over all workers, each of which may wait for the others.
        tell: called from time to time while there is progress anywhere, with bytes done and bytes in all: this
            worker's own, or all workers' where it does nothing itself.
    """
    progress, answer = Progress(), Future[T]()
    threading.Thread(target=_answer, args=(answer, work, progress), daemon=True).start()
    last, told = 0, time.monotonic()
    while True:
        wait([answer], LOOK_SECONDS)
        if answer.done():
            answer.result()  # what failed here is not waited for elsewhere
        left, done, size = total(not answer.done()), total(progress.done), total(progress.total)
        if not left:
            return answer.result()
        if done != last and time.monotonic() - told >= SIGN_SECONDS:
            tell(progress.done or done, progress.total or size)
            last, told = done, time.monotonic()


def _answer(answer: Future[T], work: Callable[[Progress], T], progress: Progress) -> None:
    try:
        answer.set_result(work(progress))
    except BaseException as error:
        answer.set_exception(error)
