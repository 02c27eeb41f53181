"""What a reader of any format gives: an image, still encoded, and what is said about it."""

from dataclasses import dataclass
from typing import Protocol


class Corrupt(ValueError):
    """One sample cannot be used, and why: it is left out, counted and named."""


@dataclass(frozen=True)
class Sample:
    """`image` is a file's content, None in a list of prompts; `label` is the name or the number of a class."""

    image: bytes | None
    caption: str | None = None
    label: str | None = None


class Reader(Protocol):
    """The samples of one dataset in an order that never changes. Its making raises DataInvalid."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """What a user knows sample `index` by."""

    def read(self, index: int) -> Sample:
        """Sample `index`. Raises Corrupt."""

    def classes(self) -> list[str]:
        """The names of all classes, sorted."""
