"""A model of the Hugging Face hub as a folder. Mirror and token are those of HF_ENDPOINT and HF_TOKEN."""

import os
import tempfile
from pathlib import Path

import huggingface_hub  # its functions are imported when they are first asked for
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from service.errors import TeacherInvalid
from service.sources import NEEDED, HubId, is_needed


def snapshot(pinned: HubId) -> Path:
    """The needed files at that commit, kept in the hub's own cache; the folder holds links to them.

    In the cache, others may have left pickles of the same commit beside them.

    Raises:
        TeacherInvalid: the model is gone, or the token may not read it.
        Exception: whatever the client behind raises when the hub does not answer.
    """
    try:
        kept = huggingface_hub.snapshot_download(
            pinned.repo,
            revision=pinned.revision,
            allow_patterns=list(NEEDED),
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    except GatedRepoError as error:
        raise TeacherInvalid(
            f"{pinned.repo} is gated, and the workers may not read it: set HF_TOKEN in the cluster's environment to a "
            "token of an account that accepted its conditions"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise TeacherInvalid(
            f"{pinned} is no longer on the hub, or HF_TOKEN in the cluster's environment may not read it"
        ) from error
    folder = Path(tempfile.mkdtemp(prefix="fewstep-"))
    for file in Path(kept).rglob("*"):
        name = file.relative_to(kept)
        if is_needed(name.as_posix()) and file.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(file.resolve())
    return folder
