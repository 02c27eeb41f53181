"""Rows and columns of Parquet and Arrow files, from footers and message headers; no value is read.

Parquet's footer is a FileMetaData in Thrift's compact protocol; an Arrow stream is a row of messages, each with a
flatbuffer that says how long its body is. Their libraries take a hundred megabytes that nothing else here needs.
"""

import struct
from dataclasses import dataclass
from typing import IO, Any

FOOTER_LIMIT = 100_000_000
"""Bytes; a file of ten thousand row groups has a tenth."""
MESSAGE_LIMIT = 10_000_000
RECORD_BATCH = 3
"""The type of an Arrow message that holds rows."""


class NotColumnar(Exception):
    """The file is not what its name says, or it is damaged; the text says which, as the end of a sentence."""


@dataclass(frozen=True)
class Table:
    """
    Attributes:
        columns: names of the outermost ones.
        metadata: texts that the file's writer left in it, by key.
    """

    rows: int
    columns: list[str]
    metadata: dict[str, str]


def parquet_table(file: IO[bytes], size: int) -> Table:
    """From a Parquet file's footer. Raises NotColumnar."""
    if size < 12:
        raise NotColumnar("is no Parquet file, or is cut off")
    file.seek(size - 8)
    length, magic = struct.unpack("<I4s", file.read(8))
    if magic != b"PAR1" or not 0 < length <= min(FOOTER_LIMIT, size - 12):
        raise NotColumnar("is no Parquet file, or is cut off")
    file.seek(size - 8 - length)
    try:
        footer = _Thrift(file.read(length)).struct()
        schema = [(str(part[4], "utf-8"), part.get(5, 0)) for part in footer[2]]
        metadata = {str(pair[1], "utf-8"): str(pair.get(2, b""), "utf-8") for pair in footer.get(5, [])}
        rows = footer[3]
    except (IndexError, KeyError, TypeError, ValueError, RecursionError, struct.error) as error:
        raise NotColumnar("has a damaged footer") from error
    columns, hidden = [], 0
    for name, children in schema[1:]:  # the root comes first, then each part before its children
        if hidden == 0:
            columns.append(name)
        hidden = max(0, hidden - 1) + children
    return Table(rows, columns, metadata)


def arrow_rows(file: IO[bytes], size: int) -> int:
    """How many rows an Arrow stream has. Raises NotColumnar."""
    at = rows = 0
    while True:
        file.seek(at)
        start = file.read(8)
        if len(start) < 8:
            raise NotColumnar("is cut off")
        mark, length = struct.unpack("<Ii", start)
        if mark != 0xFFFFFFFF or not 0 <= length <= MESSAGE_LIMIT:
            raise NotColumnar("is no stream of Arrow")
        if length == 0:
            return rows
        try:
            message = _Flatbuffer(file.read(length))
            root = message.root()
            body = message.number(root, 3, "<q")
            if message.number(root, 1, "<B") == RECORD_BATCH:
                rows += message.number(message.child(root, 2), 0, "<q")
        except struct.error as error:
            raise NotColumnar("has a damaged message") from error
        if body < 0 or rows < 0 or at + 8 + length + body > size:
            raise NotColumnar("is cut off")
        at += 8 + length + body


class _Flatbuffer:
    """Tables of a flatbuffer; `struct.error` for anything outside it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def root(self) -> int:
        return self._read("<I", 0)

    def child(self, table: int, field: int) -> int:
        """The table that a field points to."""
        at = table + self._slot(table, field)
        return at + self._read("<I", at)

    def number(self, table: int, field: int, kind: str) -> int:
        """A field's value; 0 where it is left out."""
        slot = self._slot(table, field)
        return self._read(kind, table + slot) if slot else 0

    def _slot(self, table: int, field: int) -> int:
        slots = table - self._read("<i", table)
        return self._read("<H", slots + 4 + 2 * field) if 4 + 2 * field < self._read("<H", slots) else 0

    def _read(self, kind: str, at: int) -> int:
        if at < 0:
            raise struct.error("before the buffer")
        value: int = struct.unpack_from(kind, self._content, at)[0]
        return value


class _Thrift:
    """Values of Thrift's compact protocol; IndexError, TypeError or struct.error where they are damaged."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def struct(self) -> dict[int, Any]:
        """By the fields' ids."""
        fields: dict[int, Any] = {}
        last = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            last = last + delta if delta else self._signed()
            fields[last] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._signed()
            case 7:
                return struct.unpack("<d", self._bytes(8))[0]
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                head = self._byte()
                length = self._varint() if head >> 4 == 15 else head >> 4
                return [self._value(head & 15) for _ in range(length)]
            case 11:
                length = self._varint()
                kinds = self._byte() if length else 0
                return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(length)]
            case 12:
                return self.struct()
        raise TypeError(f"no value is of kind {kind}")

    def _signed(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise TypeError("a number of more than 64 bits")

    def _byte(self) -> int:
        self._at += 1
        return self._content[self._at - 1]

    def _bytes(self, length: int) -> bytes:
        if self._at + length > len(self._content):
            raise IndexError
        self._at += length
        return self._content[self._at - length : self._at]
