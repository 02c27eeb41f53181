"""WebDataset: tar files, in which the files of one stem are one sample."""

import json
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.data_names import CAPTION_NAMES, IMAGES, LABEL_NAMES, field
from service.errors import DataInvalid
from workers.data.dataset import files_of
from workers.data.sample import Corrupt, Sample

SAID = (".txt", ".cls", ".json")
"""A caption, a class, an object with either. Members of any other kind are not looked at."""


@dataclass(frozen=True)
class Place:
    """Where a member's content lies in its tar, in bytes."""

    offset: int
    size: int


class WebDataset:
    """The tars below `folder` sorted by path, and samples in the order of their first members.

    Headers are read once; contents when they are asked for.
    """

    def __init__(self, folder: Path) -> None:
        self._samples: list[tuple[Path, str, dict[str, Place]]] = []
        for tar in files_of(folder):
            if tar.suffix.lower() == ".tar":
                self._samples += [(tar, stem, members) for stem, members in index(tar).items()]
        if not any(members.keys() & IMAGES for _, _, members in self._samples):
            raise DataInvalid(
                f"the tars of {folder.name} hold 0 images; files of one stem are a sample: 0.jpg with 0.txt or 0.cls"
            )

    def __len__(self) -> int:
        return len(self._samples)

    def key(self, index: int) -> str:
        tar, stem, _ = self._samples[index]
        return f"{tar.name}/{stem}"

    def read(self, index: int) -> Sample:
        tar, _, members = self._samples[index]
        images = sorted(members.keys() & IMAGES)
        if not images:
            raise Corrupt("it has no image")
        caption, label = None, None
        try:
            with tar.open("rb") as stream:

                def content(suffix: str) -> bytes:
                    stream.seek(members[suffix].offset)
                    return stream.read(members[suffix].size)

                image = content(images[0])
                said = {suffix: content(suffix).decode() for suffix in SAID if suffix in members}
                row = json.loads(said.get(".json", "{}"))
        except (ValueError, RecursionError) as error:
            raise Corrupt(f"what is said about it cannot be read ({error})") from error
        if isinstance(row, dict):
            caption, label = field(row, CAPTION_NAMES), field(row, LABEL_NAMES)
        return Sample(image, said.get(".txt", "").strip() or caption, said.get(".cls", "").strip() or label)

    def classes(self) -> list[str]:
        found: set[str] = set()
        for i in range(len(self)):
            with suppress(Corrupt):  # it will be named when it is encoded
                found.add(self.read(i).label or "")
        return sorted(found - {""})


def index(tar: Path) -> dict[str, dict[str, Place]]:
    """The members of an uncompressed tar: stem -> suffix in lower case -> place.

    A stem ends at the first dot of the file's name; of a suffix that came twice the last counts, as in any tar.

    Raises:
        DataInvalid: it is no tar, or it breaks off.
    """
    found: dict[str, dict[str, Place]] = {}
    end = 0
    try:
        with tarfile.open(tar, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or it would keep all headers of a large tar
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                folder, slash, name = member.name.rpartition("/")
                stem, dot, suffix = name.partition(".")
                if member.isreg() and stem:
                    found.setdefault(folder + slash + stem, {})[dot + suffix.lower()] = Place(
                        member.offset_data, member.size
                    )
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise DataInvalid(f"{tar.name} is no whole tar ({error}): it may be cut off; copy it again") from error
    with tar.open("rb") as stream:
        stream.seek(end)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise DataInvalid(f"{tar.name} is cut off: the mark at the end of a tar is missing; copy it again")
    return found
