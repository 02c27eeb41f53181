"""A repository of the Hugging Face hub as a folder. Mirror and token are those of HF_ENDPOINT and HF_TOKEN."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import huggingface_hub  # its functions are imported when they are first asked for
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from service.errors import DataInvalid, TeacherInvalid
from service.sources import HubId, is_needed
from workers.progress import Progress

LINKS = Path(tempfile.gettempdir()) / "fewstep-hub"
"""Folders of links into the hub's cache, one for all processes of this machine; it may be emptied when no job runs."""


def snapshot(pinned: HubId, needed: Sequence[str], progress: Progress) -> Path:
    """The needed files at that commit, kept in the hub's own cache; the folder holds links to them.

    In the cache, others may have left pickles of the same commit beside them. The folder is the same each time, as
    what is made of a dataset is known by its path.

    Args:
        needed: patterns of the files that are taken.

    Raises:
        TeacherInvalid: the model is gone, or the token may not read it. DataInvalid of a dataset.
        Exception: whatever the client behind raises when the hub does not answer.
    """
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    progress.watch(cache / f"{pinned.kind}s--{pinned.repo.replace('/', '--')}" / "blobs")
    invalid = DataInvalid if pinned.kind == "dataset" else TeacherInvalid
    try:
        kept = huggingface_hub.snapshot_download(
            pinned.repo,
            repo_type=pinned.kind,
            revision=pinned.revision,
            allow_patterns=list(needed),
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    except GatedRepoError as error:
        raise invalid(
            f"{pinned.page} is gated, and the workers may not read it: set HF_TOKEN in the cluster's environment to a "
            "token of an account that accepted its conditions"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise invalid(
            f"{pinned} is no longer on the hub, or HF_TOKEN in the cluster's environment may not read it"
        ) from error
    folder = LINKS / hashlib.sha256("\n".join([kept, *needed]).encode()).hexdigest()[:32]
    for file in Path(kept).rglob("*"):
        name = file.relative_to(kept)
        if is_needed(name.as_posix(), needed) and file.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # of an earlier job, or of another process of this one
                (folder / name).symlink_to(file.resolve())
    return folder
