"""A folder of images, as Hugging Face's imagefolder has it: captions or classes in `metadata.jsonl` or `metadata.csv`,
or a sub-folder for each class, or neither."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from service.data_names import CAPTION_NAMES, IMAGES, LABEL_NAMES, METADATA, field
from service.errors import DataInvalid
from workers.data.dataset import files_of, some
from workers.data.sample import Corrupt, Sample


class Images:
    """The images below `folder`, sorted by path. A metadata file names images relative to where it lies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        everything = files_of(folder)
        self._files = [file for file in everything if file.suffix.lower() in IMAGES]
        if not self._files:
            raise DataInvalid(f"{folder.name} has 0 images; give a folder with {', '.join(IMAGES)} files")
        self._rows: dict[Path, dict[str, Any]] = {}
        for file in everything:
            if file.name in METADATA:
                self._rows |= {file.parent / name: row for name, row in rows_of(file).items()}
        if self._rows:
            self._match()
        self._classes = len({file.parent for file in self._files}) > 1 and not self._rows

    def _match(self) -> None:
        images = set(self._files)
        bare, lost = sorted(images - self._rows.keys()), sorted(self._rows.keys() - images)
        if bare or lost:
            wrong = f"the metadata has {len(self._rows)} rows, and the folder has {len(images)} images"
            named = [f"no row for {some([self._name(f) for f in bare])}"] if bare else []
            named += [f"no image for {some([self._name(f) for f in lost])}"] if lost else []
            raise DataInvalid(f"{wrong}: {'; '.join(named)}; every image needs one row with its file_name")

    def _name(self, file: Path) -> str:
        return file.relative_to(self._folder).as_posix()

    def __len__(self) -> int:
        return len(self._files)

    def key(self, index: int) -> str:
        return self._name(self._files[index])

    def read(self, index: int) -> Sample:
        file = self._files[index]
        try:
            content = file.read_bytes()
        except OSError as error:
            raise Corrupt(f"it cannot be read ({error.strerror})") from error
        return Sample(content, field(self._rows.get(file, {}), CAPTION_NAMES), self._label(file))

    def _label(self, file: Path) -> str | None:
        return file.parent.name if self._classes else field(self._rows.get(file, {}), LABEL_NAMES)

    def classes(self) -> list[str]:
        return sorted({label for file in self._files if (label := self._label(file)) is not None})


def rows_of(file: Path) -> dict[str, dict[str, Any]]:
    """The rows of a metadata file by their file_name. Raises DataInvalid."""
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataInvalid(f"{file.name} is not UTF-8 ({error.reason}); save it in that encoding") from error
    rows = csv_rows(file.name, text) if file.suffix == ".csv" else json_rows(file.name, text)
    found: dict[str, dict[str, Any]] = {}
    for i, row in enumerate(rows, 1):
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise DataInvalid(f"row {i} of {file.name} has no file_name; every row names its image there")
        if name in found:
            raise DataInvalid(f"{file.name} has two rows for {name}; leave one")
        found[name] = row
    return found


def csv_rows(name: str, text: str) -> list[dict[str, Any]]:
    """Of a table with a line of names above it."""
    try:
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise DataInvalid(f"{name} is not valid CSV ({error}); put quotes around texts with commas") from error


def json_rows(name: str, text: str) -> list[dict[str, Any]]:
    """Of JSON lines; empty ones are not counted."""
    rows: list[dict[str, Any]] = []
    for i, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataInvalid(f"line {i} of {name} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataInvalid(f'line {i} of {name} is no JSON object; write {{"file_name": …, "text": …}}')
            rows.append(row)
    return rows
