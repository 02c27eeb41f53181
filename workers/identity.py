"""Whether teacher and dataset are those that were registered, and those that a checkpoint was trained with."""

import hashlib
from pathlib import Path
from typing import IO, cast

from service.errors import DataInvalid, TeacherInvalid
from service.folder import Folder
from service.inspection import inspect
from service.observations import AttemptOrder
from service.sources import BUILTIN, hub_id
from service.spec import JobSpec
from workers.artifact import files_of
from workers.machine import hashed_once
from workers.progress import Progress
from workers.state import State

GIT_HASH = 40
"""Characters of git's own hash of a file; the hub names small files by it, and large ones by their SHA-256."""


class LocalFolder(Folder):
    """A teacher's folder on this machine. Its weights are hashed as those of the folder in the store are."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        files = set(files_of(folder))
        super().__init__(files, files)
        self._folder, self._progress = folder, progress

    def read(self, file: str) -> bytes:
        return (self._folder / file).read_bytes()

    def header(self, file: str) -> tuple[bytes, int]:
        with (self._folder / file).open("rb") as source:
            return self.read_header(file, cast("IO[bytes]", _Counted(source, self._progress)))


class HubCopy(LocalFolder):
    """A copy of a repository of the hub. Its weights are hashed as the hub's records of them are."""

    def header(self, file: str) -> tuple[bytes, int]:
        digest, self.digest = self.digest, hashlib.sha256()
        found = super().header(file)
        sha256, self.digest = self.digest.hexdigest(), digest
        self.digest.update(f"{file} {self._of_git(file) or sha256}\n".encode())
        return found

    def _of_git(self, file: str) -> str | None:
        """Of a file that the hub's client keeps under such a hash."""
        kept = (self._folder / file).resolve()
        if len(kept.name) != GIT_HASH:
            return None
        content = kept.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Counted:
    """A file of which is told how much was read."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self._file, self._progress = file, progress

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._progress.add(len(content))
        return content


def check_registered(order: AttemptOrder, folder: Path, progress: Progress) -> None:
    """TeacherInvalid unless the weights in `folder` are those that were registered. Read once on each machine."""
    kind = LocalFolder if hub_id(order.teacher_source) is None else HubCopy
    if not folder.is_dir():
        raise TeacherInvalid(f"there is no {order.teacher_source}: put the teacher '{order.teacher}' back there")
    found = hashed_once(kind.__name__, folder, lambda: inspect(kind(folder, progress)).sha256)
    if found == order.teacher_sha256:
        return
    fix = (
        "run the same version of Fewstep on the cluster and on the control plane"
        if order.teacher_source.startswith(BUILTIN)
        else "restore its files, or register what is there now under a new name"
    )
    raise TeacherInvalid(
        f"the teacher '{order.teacher}' was registered with weights of sha256 {_short(order.teacher_sha256)}, and "
        f"{order.teacher_source} now holds weights of {_short(found)}: {fix}"
    )


def check_trained_with(state: State, spec: JobSpec, teacher: str, dataset: str) -> None:
    """TeacherInvalid or DataInvalid where a checkpoint was trained with others; one that holds none is taken as it is.

    Args:
        teacher, dataset: hashes of today's files; the latter empty where nothing is learnt from a dataset.
    """
    if not state.teacher:
        return
    since = f"the checkpoint of step {state.step} of stage {state.stage + 1} was trained with"
    if state.teacher != teacher:
        raise TeacherInvalid(
            f"{since} the teacher '{spec.teacher}' as files of sha256 {_short(state.teacher)}, which are now "
            f"{_short(teacher)}: restore them, or register what is there under a new name for a new job"
        )
    if state.dataset != dataset:
        name = f"the dataset '{spec.data}'" if spec.data else "a dataset"
        raise DataInvalid(
            f"{since} {name} as files of sha256 {_short(state.dataset)}, which are now {_short(dataset)}: restore "
            "them, or submit a new job for what is there"
        )


def _short(sha256: str) -> str:
    return f"{sha256[:12]}…" if sha256 else "none"
