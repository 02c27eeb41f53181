"""Captions and prompts: the texts beside images, and the texts that stand alone."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from service.data_names import CAPTION_NAMES, LABEL_NAMES, METADATA, field
from service.dataset_folder import DataFolder, Facts, class_names, json_object, refuse, some
from service.spec import PROMPT_LENGTH

ROW = 'write a line {"file_name": "a.png", "text": "a caption"} for each image'
PROMPT = 'write a line {"prompt": "a red fox"} for each'


def metadata_files(folder: DataFolder) -> list[str]:
    return [file for file in folder.files if PurePosixPath(file).name in METADATA]


def captioned_images(folder: DataFolder, metadata: Sequence[str], images: Sequence[str]) -> Facts:
    """Of images of which `metadata` has one row each. DataInvalid says which images or rows are without the other."""
    named: set[str] = set()
    labels: set[str] = set()
    captions = 0
    for file in metadata:
        for number, row in enumerate(_rows(folder, file), 1):
            name = row.get("file_name")
            if not isinstance(name, str) or not name:
                refuse(f"{file} has no file_name in entry {number}: {ROW}.")
            image = str(PurePosixPath(file).parent / name)
            if image in named:
                refuse(f"{file} names {name} twice: keep one line for each image.")
            named.add(image)
            captions += field(row, CAPTION_NAMES) is not None
            label = field(row, LABEL_NAMES)
            labels |= set() if label is None else {label}
    bare, lost = sorted(set(images) - named), sorted(named - set(images))
    if bare or lost:
        clauses = [f"no line for {some(bare)}"] if bare else []
        clauses += [f"no image for {some(lost)}"] if lost else []
        refuse(f"{some(metadata)} has {len(named):,} lines for {len(images):,} images ({'; '.join(clauses)}): {ROW}.")
    if not captions and not labels:
        refuse(f"{some(metadata)} has neither {' nor '.join((*CAPTION_NAMES, *LABEL_NAMES))} in its lines: {ROW}.")
    if captions:
        return Facts("images", "captions", captions, folder.size, class_names(labels))
    return Facts("images", "classes", len(images), folder.size, class_names(labels))


def prompts(folder: DataFolder, texts: Sequence[str]) -> Facts:
    """Of .txt files with one prompt in a line, or .jsonl files; empty lines are none."""
    count = 0
    for file in texts:
        for number, line in enumerate(folder.lines(file), 1):
            if line.strip():
                _check_prompt(line.strip(), f"Line {number} of {file}", file.lower().endswith(".jsonl"))
                count += 1
    if not count:
        refuse(f"{some(texts)} holds no prompts: write one in each line.")
    return Facts("prompts", "captions", count, folder.size)


def _check_prompt(line: str, where: str, is_json: bool) -> None:
    prompt = field(json_object(line, where, PROMPT), CAPTION_NAMES) if is_json else line
    if prompt is None:
        refuse(f"{where} has no prompt: {PROMPT}.")
    if len(prompt) > PROMPT_LENGTH:
        refuse(f"{where} has {len(prompt):,} characters: a prompt has {PROMPT_LENGTH:,} at most.")


def _rows(folder: DataFolder, file: str) -> Iterator[dict[str, Any]]:
    if file.endswith(".jsonl"):
        for number, line in enumerate(folder.lines(file), 1):
            if line.strip():
                yield json_object(line, f"Line {number} of {file}", ROW)
        return
    try:
        yield from csv.DictReader(folder.lines(file), strict=True)
    except csv.Error as error:
        refuse(f"{file} is not valid CSV ({error}): write the columns file_name and text, with quotes around commas.")
