"""A Hugging Face dataset on disk: what `save_to_disk` wrote, or a folder of Parquet or Arrow files."""

import tempfile
from pathlib import Path
from typing import Any

import datasets
from pyarrow import ArrowException

from service.data_names import CAPTION_NAMES, IMAGE_NAMES, LABEL_NAMES, TRAIN, field
from service.errors import DataInvalid
from workers.data.dataset import files_of
from workers.data.sample import Corrupt, Sample

TABLES = Path(tempfile.gettempdir()) / "fewstep-tables"
"""Parquet is read as Arrow, kept here for all processes of this machine; it may be emptied when no job runs."""


class HuggingFace:
    """Its rows. The image is the column of that feature or name, the class the column of that feature or name."""

    def __init__(self, folder: Path) -> None:
        datasets.disable_progress_bars()
        try:
            found = opened(folder)
        except (OSError, ValueError, KeyError, ArrowException, datasets.exceptions.DatasetsError) as error:
            raise DataInvalid(f"{folder.name} does not open as a Hugging Face dataset: {error}") from error
        features = found.features
        images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
        images += [name for name in IMAGE_NAMES if name in features]
        if not images or not len(found):
            raise DataInvalid(
                f"{folder.name} has 0 images: {len(found)} rows of {', '.join(features)}; it needs a column 'image'"
            )
        self._image = images[0]
        classes = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
        self._labels = (*classes, *LABEL_NAMES)
        if isinstance(features[self._image], datasets.Image):
            found = found.cast_column(self._image, datasets.Image(decode=False))
        said = {self._image, *self._labels, *CAPTION_NAMES}
        self._rows = found.select_columns([name for name in features if name in said])

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, index: int) -> str:
        return f"row {index}"

    def read(self, index: int) -> Sample:
        row: dict[str, Any] = self._rows[index]
        image = row[self._image]
        content = image.get("bytes") if isinstance(image, dict) else image
        if not isinstance(content, bytes):
            raise Corrupt("its row holds no image")
        return Sample(content, field(row, CAPTION_NAMES), field(row, self._labels))

    def classes(self) -> list[str]:
        """None are needed where the column is of numbers, as that of a ClassLabel is."""
        named = [name for name in self._labels if name in self._rows.features]
        return sorted({str(name) for name in self._rows.unique(named[0]) if name is not None}) if named else []


def opened(folder: Path) -> datasets.Dataset:
    """The split for training, or all there is where nothing is called so."""
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        found = datasets.load_from_disk(str(folder))
        if isinstance(found, datasets.DatasetDict):
            return found[TRAIN] if TRAIN in found else next(iter(found.values()))
        return found
    for suffix in (".parquet", ".arrow"):
        files = [file for file in files_of(folder) if file.suffix.lower() == suffix]
        train = [str(file) for file in files if TRAIN in file.relative_to(folder).as_posix()]
        if paths := train or [str(file) for file in files]:
            if suffix == ".parquet":
                return datasets.Dataset.from_parquet(paths, cache_dir=str(TABLES))
            return datasets.concatenate_datasets([datasets.Dataset.from_file(path) for path in paths])
    raise DataInvalid(f"{folder.name} has no dataset_dict.json, no state.json, no .parquet and no .arrow file")
