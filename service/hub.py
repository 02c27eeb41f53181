"""The Hugging Face hub or a mirror of it: what a repository holds, parts of its files, and teachers that lie there."""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NoReturn

import huggingface_hub as hf
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling
from pydantic import SecretStr

from service import dataset_folder, folder
from service.errors import FewstepError, HubUnavailable
from service.folder import HEADER_LIMIT, Folder, refuse
from service.sources import HubId, is_needed

TOKEN = "FEWSTEP_HUB_TOKEN"
SECONDS = 10.0
"""For each call to be answered, and between pieces of an answer."""
FIRST_BYTES = 100_000
"""Most headers of weights are shorter, so one call is enough for them."""
PARTIAL = 206
"""The status of an answer that is the part that was asked for."""


class Hub:
    """One hub, and whose token asks it. Synchronous: callers on an event loop use a thread.

    Every call may raise HubUnavailable, and TeacherInvalid of a model or DataInvalid of a dataset.
    """

    def __init__(self, endpoint: str, token: SecretStr) -> None:
        self.endpoint = endpoint.rstrip("/")
        secret = token.get_secret_value()
        self._api = hf.HfApi(endpoint=self.endpoint, token=secret or False)  # False: nor the machine's own login
        self._authorization = {"Authorization": f"Bearer {secret}"} if secret else {}

    def listing(self, asked: HubId) -> tuple[HubId, list[RepoSibling]]:
        """The repository at the commit that its revision is at now, and its files."""
        with self.asking(asked):
            ask = self._api.dataset_info if asked.kind == "dataset" else self._api.model_info
            info = ask(asked.repo, revision=asked.revision, files_metadata=True, timeout=SECONDS)
        return replace(asked, revision=info.sha), info.siblings or []

    def open(self, asked: HubId) -> "HubFolder":
        """A model at its present commit."""
        pinned, files = self.listing(asked)
        hashes = {file.rfilename: file.lfs.sha256 if file.lfs is not None else file.blob_id or "" for file in files}
        return HubFolder(self, pinned, hashes, {file.rfilename: file.size or 0 for file in files})

    def part_of(self, pinned: HubId, file: str, start: int, length: int) -> bytes:
        """The `length` bytes of a file from `start` on, or fewer where it ends before."""
        url = hf.hf_hub_url(pinned.repo, file, repo_type=pinned.kind, revision=pinned.revision, endpoint=self.endpoint)
        headers = self._authorization | {
            "Range": f"bytes={start}-{start + length - 1}",
            "Accept-Encoding": "identity",
        }
        content = bytearray()
        with (
            self.asking(pinned),
            hf.get_session().stream("GET", url, headers=headers, timeout=SECONDS, follow_redirects=True) as answer,
        ):
            hf.hf_raise_for_status(answer)
            skipped = 0 if answer.status_code == PARTIAL else start  # a mirror may send the whole file
            for piece in answer.iter_bytes():
                content += piece[skipped:]
                skipped = max(0, skipped - len(piece))
                if len(content) >= length:
                    break
        return bytes(content[:length])

    @contextmanager
    def asking(self, asked: HubId) -> Iterator[None]:
        """What the hub answers, as the user is told of it."""
        page = f"{self.endpoint}/{asked.page}"
        refuse: Callable[[str], NoReturn] = dataset_folder.refuse if asked.kind == "dataset" else folder.refuse
        try:
            yield
        except FewstepError:
            raise
        except GatedRepoError:
            refuse(
                f"{asked.repo} is gated: accept its conditions at {page}, and set {TOKEN} to a token of the account "
                "that did (and HF_TOKEN of the cluster)."
            )
        except RevisionNotFoundError:
            refuse(
                f"{asked.repo} has no revision '{asked.revision}': name a branch, a tag or a commit that {page} has."
            )
        except (RepositoryNotFoundError, HFValidationError):
            refuse(
                f"There is no {page}, or it is private: look for typing errors, or set {TOKEN} to a token that sees it."
            )
        except Exception as error:  # of the client behind, of which there are several
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
            if status in (401, 403):
                refuse(f"The hub refuses {page} ({status}): set {TOKEN} to a token that may read it.")
            what = type(error).__name__ if status is None else f"status {status}"
            raise HubUnavailable(
                f"The hub at {self.endpoint} did not give {asked.repo} ({what}); try again in a moment, or set "
                "FEWSTEP_HUB_ENDPOINT to a mirror that can be reached from here."
            ) from error


class HubFolder(Folder):
    """A repository at one commit. Pickles and code in it are never fetched, so they need not be refused.

    Args:
        hashes: by file, of all that the repository has: the SHA-256 of large ones, git's own of the others.
        lengths: by file, in bytes.
    """

    def __init__(self, hub: Hub, pinned: HubId, hashes: dict[str, str], lengths: dict[str, int]) -> None:
        super().__init__({file for file in hashes if is_needed(file)}, set(hashes))
        self.pinned, self._hub, self._hashes, self._lengths = pinned, hub, hashes, lengths

    def read(self, file: str) -> bytes:
        if self._lengths[file] > HEADER_LIMIT:
            refuse(f"{file} has {self._lengths[file]} bytes, which is more than a configuration needs.")
        return self._hub.part_of(self.pinned, file, 0, HEADER_LIMIT)

    def header(self, file: str) -> tuple[bytes, int]:
        if not self._hashes[file]:
            refuse(f"The hub does not say the hash of {file}, by which workers know it: use a mirror that does.")
        self.digest.update(f"{file} {self._hashes[file]}\n".encode())
        start = self._hub.part_of(self.pinned, file, 0, FIRST_BYTES)
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
        if length > HEADER_LIMIT:
            return start[:8], 0
        if 8 + length > len(start):
            start = self._hub.part_of(self.pinned, file, 0, 8 + length)
        return start[8 : 8 + length], self._lengths[file] - 8 - length
