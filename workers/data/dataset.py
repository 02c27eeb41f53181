"""A dataset of the user's own, as a job is given it."""

from dataclasses import dataclass
from pathlib import Path

from service.observations import DatasetOrder


@dataclass(frozen=True)
class Dataset:
    """What was ordered, and the local folder that holds it."""

    order: DatasetOrder
    folder: Path
