"""Hugging Face datasets on disk: what `save_to_disk` wrote, or a folder of Parquet files."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from service.columnar import NotColumnar, Table, arrow_rows, parquet_table
from service.data_names import CAPTION_NAMES, IMAGE_NAMES, TRAIN
from service.dataset_folder import DataFolder, Facts, refuse, some

SPLITS, INFO, STATE = "dataset_dict.json", "dataset_info.json", "state.json"
SAVE = "write the dataset again with save_to_disk(folder)"
COPY = "copy it again"
AT_ONCE = 8
"""Footers that are read at the same time: of files that are far away, each takes a while."""


def saved_dataset(folder: DataFolder) -> Facts:
    """Rows and columns, from JSON and headers alone. DataInvalid names the file and the fix."""
    if folder.of(".parquet"):
        rows, columns, features = _parquet(folder)
    else:
        rows, columns, features = _arrow(folder)
    if not rows:
        refuse(f"It has 0 rows: {SAVE} once it has some.")
    if not any(name in IMAGE_NAMES or features.get(name, {}).get("_type") == "Image" for name in columns):
        there = some(columns) or "none at all"
        refuse(f"It has no column of images, but {there}: call the images' 'image', or write prompts into a .txt.")
    classes = next(filter(None, map(_classes, features.values())), None)
    if any(name in columns for name in CAPTION_NAMES):
        return Facts("huggingface", "captions", rows, folder.size, classes)
    return Facts("huggingface", "nothing" if classes is None else "classes", rows, folder.size, classes)


Features = dict[str, dict[str, Any]]
"""What is said of each column."""


def _classes(feature: dict[str, Any]) -> list[str] | None:
    """Their names, of a column of classes."""
    names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    return [str(name) for name in names] if isinstance(names, list) and names else None


def _arrow(folder: DataFolder) -> tuple[int, list[str], Features]:
    at = ""
    if SPLITS in folder.files:
        splits = folder.json(SPLITS, SAVE).get("splits")
        if not isinstance(splits, list) or not splits or (len(splits) > 1 and TRAIN not in splits):
            refuse(f"{SPLITS} has no split called {TRAIN}: give the path of the folder of one of its splits.")
        at = f"{TRAIN if TRAIN in splits else splits[0]}/"
    features = _features(folder.json(f"{at}{INFO}", SAVE).get("features"))
    files = folder.json(f"{at}{STATE}", SAVE).get("_data_files")
    if not isinstance(files, list):
        refuse(f"{at}{STATE} has no _data_files: {SAVE}.")
    rows = 0
    for entry in files:
        file = f"{at}{entry.get('filename') if isinstance(entry, dict) else None}"
        if file not in folder.files:
            refuse(f"{at}{STATE} names {file.removeprefix(at)}, which is not there: copy all of its files.")
        with folder.open(file) as source:
            try:
                rows += arrow_rows(source)
            except NotColumnar as error:
                refuse(f"{file} {error}: {COPY}.")
    return rows, list(features), features


def _parquet(folder: DataFolder) -> tuple[int, list[str], Features]:
    files = folder.of(".parquet")
    train = [file for file in files if TRAIN in file]
    read = train or files
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tables = list(pool.map(partial(_table, folder), read))
    for file, table in zip(read, tables, strict=True):
        if table.columns != tables[0].columns:
            refuse(
                f"{file} has other columns than {read[0]}: put files of one dataset alone into a folder of the store."
            )
    try:
        told = json.loads(tables[0].metadata.get("huggingface", "{}"))
        features = _features(told["info"]["features"] if told else {})
    except (ValueError, KeyError, TypeError, RecursionError):
        features = {}
    return sum(table.rows for table in tables), tables[0].columns, features


def _table(folder: DataFolder, file: str) -> Table:
    with folder.open(file) as source:
        try:
            return parquet_table(source)
        except NotColumnar as error:
            refuse(f"{file} {error}: {COPY}.")


def _features(found: Any) -> Features:
    """Those that are described as `datasets` does."""
    columns = found.items() if isinstance(found, dict) else ()
    return {str(name): feature if isinstance(feature, dict) else {} for name, feature in columns}
