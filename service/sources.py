"""Where a teacher's or a dataset's files are: in the store, on the hub, or in the package `workers` itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from service.data_names import IMAGES, METADATA
from service.observations import DataFormat

BUILTIN = "builtin:"
HUB = "hf://"

NEEDED = (
    "model_index.json",
    "*/*.json",
    "*/*.txt",
    "*/*.model",
    "*/diffusion_pytorch_model.safetensors",
    "*/diffusion_pytorch_model-?????-of-?????.safetensors",
    "*/model.safetensors",
    "*/model-?????-of-?????.safetensors",
)
"""What is taken from a model of the hub: no pickles, no code, no variants, no checkpoints beside the pipeline."""


def _in_any_case(*endings: str) -> tuple[str, ...]:
    """Patterns of files that end so; those of the hub's client tell cases apart."""
    return tuple("*" + "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in ending) for ending in endings)


def _anywhere(*names: str) -> tuple[str, ...]:
    """Patterns of files that are called so, in whatever folder."""
    return (*names, *(f"*/{name}" for name in names))


DATA: dict[DataFormat, tuple[str, ...]] = {
    "images": (*_in_any_case(*IMAGES), *_anywhere(*METADATA)),
    "webdataset": _in_any_case(".tar"),
    "huggingface": (
        *_in_any_case(".parquet", ".arrow"),
        *_anywhere("dataset_dict.json", "dataset_info.json", "state.json"),
    ),
    "prompts": _in_any_case(".txt", ".jsonl"),
}
"""What is taken from a dataset of the hub, by its format."""

_HUB_ID = re.compile(
    r"hf://(?P<dataset>datasets/)?(?!datasets/)(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII
)


@dataclass(frozen=True)
class HubId:
    """A repository, and a branch, tag or commit of it; None is its main branch."""

    repo: str
    revision: str | None
    kind: Literal["model", "dataset"] = "model"

    @property
    def page(self) -> str:
        """Where the hub shows it, below the hub's own address."""
        return f"datasets/{self.repo}" if self.kind == "dataset" else self.repo

    def __str__(self) -> str:
        return f"{HUB}{self.page}" + (f"@{self.revision}" if self.revision else "")


def hub_id(source: str) -> HubId | None:
    """Of `hf://org/name`, a model, or `hf://datasets/org/name`, either with `@revision`; None for any other text."""
    match = _HUB_ID.fullmatch(source)
    if match is None or ".." in source:
        return None
    return HubId(match["repo"], match["revision"], "dataset" if match["dataset"] else "model")


def is_needed(file: str, needed: Sequence[str] = NEEDED) -> bool:
    """Whether a file of the hub is one of those that are taken."""
    return any(fnmatchcase(file, pattern) for pattern in needed)


def url_of(source: str, store_url: str) -> str:
    """What the cluster opens: a path inside the store becomes the store's URL of it."""
    return source if source.startswith((BUILTIN, HUB)) else f"{store_url}/{source}"
