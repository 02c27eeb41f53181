"""Datasets on the Hugging Face hub or a mirror of it: names and sizes of files, and the parts that are needed."""

import io
from typing import IO, Any, cast

from service.dataset_folder import DataFolder, refuse
from service.hub import Hub
from service.sources import DATA, HubId, is_needed

PACKED = (".tar", ".parquet", ".arrow")
WALKED = (".tar", ".arrow", ".jsonl", ".csv", ".txt")
"""What is read to its end to count its samples."""
WALK_LIMIT = 1_000_000_000
"""Bytes of them; more would take longer than a request may."""
PIECE = 1 << 22
"""Bytes that are asked for at once; fewer where a file ends."""
CONVERTED = "refs/convert/parquet"
"""The branch to which the hub itself puts datasets as Parquet."""


class HubData(DataFolder):
    """A repository of the hub at the commit that its revision is at now. DataInvalid, HubUnavailable.

    Pickles and code in it are never fetched, so they need not be refused. Images and texts beside tars or tables are
    those of its page. `size` is of the files that are needed.
    """

    def __init__(self, hub: Hub, asked: HubId) -> None:
        self._hub = hub
        self.pinned, listed = hub.listing(asked)
        super().__init__({file.rfilename: file.size or 0 for file in listed})
        if packed := self.of(*PACKED):
            tables = {*packed, *self.of(".json")}
            self.files = {file: size for file, size in self.files.items() if file in tables}
        patterns = [pattern for patterns in DATA.values() for pattern in patterns]
        needed = [file for file in self.files if is_needed(file, patterns)]
        self.size = sum(self.files[file] for file in needed)
        walked = sum(self.files[file] for file in self.of(*WALKED))
        if walked > WALK_LIMIT:
            refuse(
                f"Its tars, Arrow files or texts have {walked / 1e9:,.1f} GB, which would be read to count them, where "
                f"{WALK_LIMIT / 1e9:,.0f} GB is the most on the hub: name what the hub made of it as Parquet, "
                f"hf://{asked.page}@{CONVERTED}, if it did, or download it, put it into the store and give its path."
            )
        for file in [file for file in needed if self.files[file]][:1]:
            hub.part_of(self.pinned, file, 0, 1)  # a gated repository lets everybody list its files, not read them

    def open(self, file: str) -> IO[bytes]:
        raw = _Ranges(self._hub, self.pinned, file, self.files[file])
        return cast("IO[bytes]", io.BufferedReader(raw, PIECE))


class _Ranges(io.RawIOBase):
    """A file of the hub, of which each read asks for its range."""

    def __init__(self, hub: Hub, pinned: HubId, file: str, size: int) -> None:
        self._hub, self._pinned, self._file, self._size = hub, pinned, file, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        content = self._part(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def readall(self) -> bytes:
        return self._part(self._size)

    def _part(self, most: int) -> bytes:
        length = min(most, self._size - self._at)
        if length <= 0:
            return b""
        content = self._hub.part_of(self._pinned, self._file, self._at, length)
        self._at += len(content)
        return content
