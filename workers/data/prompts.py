"""Prompts alone: `.txt` files of lines, or `.jsonl` files with a "prompt", "text" or "caption"."""

import json
from pathlib import Path

from service.data_names import CAPTION_NAMES, field
from service.errors import DataInvalid
from workers.data.dataset import files_of
from workers.data.sample import Corrupt, Sample


class Prompts:
    """A prompt a line; empty lines are not counted."""

    def __init__(self, folder: Path) -> None:
        self._lines: list[tuple[str, str]] = []
        self._json: list[bool] = []
        for file in files_of(folder):
            if file.suffix.lower() in (".txt", ".jsonl"):
                try:
                    lines = file.read_text("utf-8-sig").split("\n")
                except UnicodeDecodeError as error:
                    raise DataInvalid(f"{file.name} is not UTF-8 ({error.reason}); save it in that encoding") from error
                kept = [(f"{file.name}, line {i}", line.strip()) for i, line in enumerate(lines, 1) if line.strip()]
                self._lines += kept
                self._json += [file.suffix.lower() == ".jsonl"] * len(kept)
        if not self._lines:
            raise DataInvalid(f"{folder.name} holds no prompts; give a .txt file with one a line, or a .jsonl file")

    def __len__(self) -> int:
        return len(self._lines)

    def key(self, index: int) -> str:
        return self._lines[index][0]

    def read(self, index: int) -> Sample:
        line = self._lines[index][1]
        return Sample(None, caption_of(line) if self._json[index] else line)

    def classes(self) -> list[str]:
        return []


def caption_of(line: str) -> str:
    """The prompt in a JSON object. Raises Corrupt."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Corrupt("it is not JSON") from error
    found = field(row, CAPTION_NAMES) if isinstance(row, dict) else None
    if found is None:
        raise Corrupt('it has no "prompt"')
    return found
