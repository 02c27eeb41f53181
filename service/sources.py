"""Where a teacher's files are: in the store, on the hub, or in the package `workers` itself."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

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
"""What is taken from a repository of the hub: no pickles, no code, no variants, no checkpoints beside the pipeline."""

_HUB_ID = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True)
class HubId:
    """A repository, and a branch, tag or commit of it; None is its main branch."""

    repo: str
    revision: str | None

    def __str__(self) -> str:
        return f"{HUB}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def hub_id(source: str) -> HubId | None:
    """Of `hf://org/name` or `hf://org/name@revision`; None for any other text."""
    match = _HUB_ID.fullmatch(source)
    if match is None or ".." in source:
        return None
    return HubId(match["repo"], match["revision"])


def is_needed(file: str) -> bool:
    """Whether a file of the hub is one of those that are taken."""
    return any(fnmatchcase(file, pattern) for pattern in NEEDED)


def url_of(source: str, store_url: str) -> str:
    """What the cluster opens: a path inside the store becomes the store's URL of it."""
    return source if source.startswith((BUILTIN, HUB)) else f"{store_url}/{source}"
