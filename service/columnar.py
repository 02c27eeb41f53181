"""Rows and columns of Parquet and Arrow files."""

import io
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


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


def parquet_table(file: IO[bytes]) -> Table:
    """From a Parquet file's footer. Raises NotColumnar."""
    try:
        footer = pq.ParquetFile(file)
        columns = footer.schema_arrow.names
        metadata = {str(key, "utf-8"): str(value, "utf-8") for key, value in (footer.metadata.metadata or {}).items()}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise NotColumnar("is no Parquet file, or is cut off") from error
    return Table(footer.metadata.num_rows, columns, metadata)


def arrow_rows(file: IO[bytes]) -> int:
    """How many rows an Arrow stream has; it is read to its end. Raises NotColumnar."""
    try:
        with pa.ipc.open_stream(file) as batches:
            rows: int = sum(batch.num_rows for batch in batches)
        file.seek(-len(END_OF_STREAM), io.SEEK_END)  # pyarrow takes a stream without its end for a whole one
        whole = file.read() == END_OF_STREAM
    except (pa.ArrowException, OSError, ValueError) as error:
        raise NotColumnar("is no stream of Arrow, or is cut off") from error
    if not whole:
        raise NotColumnar("is cut off")
    return rows
