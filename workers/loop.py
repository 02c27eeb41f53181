"""The training function of every Ray Train worker: the training core's host, on Ray Train and the reports."""

import hashlib
import json
import logging
import os
import secrets
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import ray
import ray.train
import safetensors.torch
import torch
from torch import Tensor

from service.errors import DataInvalid, TeacherInvalid
from service.observations import (
    AttemptOrder,
    CheckpointSaved,
    Done,
    Failure,
    LogLine,
    Metrics,
    Observation,
    Phase,
    Sample,
    Stopped,
    StudentExported,
)
from service.sources import DATA, url_of
from service.status import Reason, Wish
from workers import stages
from workers.artifact import folder_sha256
from workers.data.dataset import Dataset
from workers.fetch import forget
from workers.finish import ExportMismatch
from workers.group import Group, lost_peer
from workers.identity import check_registered
from workers.progress import Progress, waited
from workers.report import Attempt, Fenced, Refused, Reporter
from workers.store import Store, StoreLost, local_folder
from workers.trainer import Diverged

T = TypeVar("T")

RUN = "run"
"""Name of the Ray Train run below the job's folder; the same for all attempts, so that each goes on from the last."""

REASONS: dict[type[Exception], Reason] = {
    Diverged: Reason.DIVERGED,
    ExportMismatch: Reason.EXPORT_MISMATCH,
    TeacherInvalid: Reason.TEACHER_INVALID,
    DataInvalid: Reason.DATA_INVALID,
}
LAST_WORDS_SECONDS = 5.0
WISHES = list(Wish)
FENCED = len(WISHES)

Verdict = Literal["done", "stopped", "failed", "fenced"]


class RayHost:
    """`workers.host.Host` on Ray Train. Only rank 0 has a reporter, since an attempt has one writer."""

    def __init__(self, order: AttemptOrder, group: Group, reporter: Reporter | None, device: torch.device) -> None:
        self.rank = group.rank
        self.world_size = group.world_size
        self.device = device
        self.order = order
        self.store = Store(order.store)
        self._group = group
        self._reporter = reporter
        self._saved: str | None = None

    def tell(self, kind: type[Observation], **fields: Any) -> None:
        """Report, if this rank is the one that does."""
        if self._reporter is not None:
            self._reporter.add(kind, **fields)

    def phase(self, phase: Literal["starting", "training", "evaluating", "exporting"]) -> None:
        self.tell(Phase, phase=phase)

    def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
        self.tell(Metrics, step=step, stage=stage, values=values)

    def log(self, level: Literal["debug", "info", "warning", "error"], message: str) -> None:
        self.tell(LogLine, level=level, message=message[:4000], rank=self.rank)

    def sample(
        self, step: int, stage: int, role: Literal["student", "teacher"], sampling_steps: int, png: bytes
    ) -> None:
        if self.rank == 0:
            path = f"{self.order.folder}/samples/{role}-{stage}-{step:08d}-{sampling_steps}.png"
            self.store.put(png, path)
            self.tell(Sample, step=step, stage=stage, role=role, sampling_steps=sampling_steps, path=path)

    def save_checkpoint(self, step: int, folder: Path) -> None:
        name = f"step-{step:08d}"
        if name == self._saved:
            return  # resumed from this very checkpoint
        # Whoever resumes from it reports the steps after it only, so those before it must be stored by now.
        self._together(_flushed)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        checkpoint = (
            ray.train.Checkpoint.from_directory(folder) if size else None
        )  # Ray makes one of all ranks' folders
        try:
            ray.train.report({"step": step}, checkpoint=checkpoint, checkpoint_dir_name=name)
        except Exception as error:
            raise StoreLost(f"checkpoint {name}: {error}") from error
        self._saved = name
        size = self._group.total(size)
        self.log("info", f"Checkpoint at step {step}: {size / 1e6:.1f} MB.")
        self.tell(CheckpointSaved, step=step, path=f"{self.order.folder}/{RUN}/{name}", bytes=size)

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        self._saved = name = Path(checkpoint.path).name
        self.log("info", f"Going on from {name}.")
        source = f"{self.order.store}/{self.order.folder}/{RUN}/{name}"
        copy = self.waited("fetched", lambda progress: local_folder(source, progress=progress))
        try:
            yield copy
        finally:
            self._group.total(0)  # when all workers of this machine have read it
            forget(copy)

    def wish(self) -> Wish:
        return WISHES[self._together(lambda reporter: WISHES.index(reporter.wish()))]

    def student(self, folder: Path, grid: bytes, record: dict[str, Any]) -> None:
        if self.rank == 0:
            # A path of its own for every export: nothing that was registered is ever written again.
            path = f"{self.order.folder}/students/{record['label']}-{secrets.token_hex(4)}"
            self.store.put_folder(folder, path)
            self.store.put(grid, f"{path}.png")
            self.log("info", f"Student {record['label']} is stored.")
            self.tell(StudentExported, path=path, grid=f"{path}.png", **record)

    def fetch(self, path: str) -> Path:
        if not self.store.has(path):
            raise FileNotFoundError(f"there is no {path} in the store")
        source = f"{self.order.store}/{path}"
        return waited(lambda progress: local_folder(source, progress=progress), int, self._sign_of_life("fetched"))

    def waited(self, what: str, work: Callable[[Progress], T]) -> T:
        """Collective. What `work` gives on this rank; while it goes on anywhere, rank 0 says how much is `what`."""
        return waited(work, self._group.total, self._sign_of_life(what))

    def _sign_of_life(self, what: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            self.phase("starting")  # a sign of progress, which a line of the log is not
            of = f" of {total / 1e9:.1f}" if total else ""
            self.log("info", f"{done / 1e9:.1f}{of} GB are {what}.")

        return tell

    def cached(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = f"cache/{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
        found = self.store.json(path)
        if found is None:
            found = make()
            self.store.put_json(found, path)
        return found

    def cached_tensors(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        path = f"cache/{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
        content = self.store.get(path)
        if content is not None:
            return safetensors.torch.load(content)
        made = make()
        self.store.put(safetensors.torch.save(made), path)
        return made

    def cached_file(self, key: str, write: Callable[[Path], None]) -> Path:
        path = f"cache/{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
        found = self.store.file(path)
        if found is None:
            with tempfile.TemporaryDirectory(prefix="fewstep-") as folder:
                write(Path(folder) / "made")
                self.store.put_file(Path(folder) / "made", path)
            found = self.store.file(path)
            assert found is not None
        return found

    def flush(self) -> None:
        """Return when everything that rank 0 has reported is stored."""
        if self._reporter is not None:
            self._reporter.flush()

    def last_words(self, message: str) -> None:
        """Tell the user why this process ends, if the control plane answers within seconds."""
        self.log("error", message)
        if self._reporter is not None:
            with suppress(TimeoutError, Fenced, Refused):
                self._reporter.flush(LAST_WORDS_SECONDS)

    def _together(self, ask: Callable[[Reporter], int]) -> int:
        """Collective. Rank 0 asks its reporter and all learn the answer, or that the attempt is fenced."""
        value = 0
        if self._reporter is not None:
            try:
                value = ask(self._reporter)
            except Fenced:
                value = FENCED
        value = self._group.agree(value)
        if value == FENCED:
            raise Fenced("the control plane no longer wants this attempt")
        return value


def _flushed(reporter: Reporter) -> int:
    reporter.flush()
    return 0


def train(config: dict[str, Any]) -> Verdict:
    """Run one attempt on this rank. `config`: the order as JSON text, and the CPUs of each worker.

    What the job itself did wrong is reported and ends it; anything else is raised, so that Ray Train starts the
    workers again from the last checkpoint.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)  # or Ray passes a line per report on to the job's log
    torch.set_num_threads(max(1, int(config["cpus"])))
    torch.use_deterministic_algorithms(True, warn_only=True)
    order = AttemptOrder.model_validate_json(config["order"])
    context = ray.train.get_context()
    device = _device()
    group = Group.join(context.get_world_rank(), context.get_world_size(), device.type == "cuda")
    try:
        host = RayHost(order, group, _reporter() if group.rank == 0 else None, device)
        verdict = _run(host, group)
    except Fenced as error:
        verdict = "fenced"
        group.leave(_word(error))
    group.leave()
    return verdict


def _reporter() -> Reporter:
    attempt = Attempt()
    return Reporter(attempt, attempt.order())  # asked again: the workers before these have reported since


def _run(host: RayHost, group: Group) -> Verdict:
    try:
        host.phase("starting")
        order = host.order
        ranks = "one worker" if host.world_size == 1 else f"{host.world_size} workers"
        host.log("info", f"Attempt {order.number} starts on {ranks}, {host.device.type}.")
        teacher, dataset = _opened(host)
        outcome = stages.run(order.spec, teacher, host, dataset)
    except (Fenced, Refused):
        raise
    except StoreLost as error:
        host.last_words(f"The artifact store failed, the job goes on from its last checkpoint: {error}")
        raise
    except Exception as error:
        word = group.failure()
        if word is None:
            if lost_peer(error):
                raise
            word = _word(error)
            group.leave(word)
        failure = json.loads(word)
        host.log("error", failure.pop("traceback"))
        host.tell(Failure, **failure)
        host.flush()
        return "failed"
    if outcome.stopped is None:
        host.tell(Done)
    else:
        host.log("info", f"Stopped at step {outcome.step} on request ({outcome.stopped}).")
        host.tell(Stopped, wish=outcome.stopped, step=outcome.step)
    host.flush()
    return "done" if outcome.stopped is None else "stopped"


def _opened(host: RayHost) -> tuple[Path, Dataset | None]:
    """Collective. The registered teacher, and what the job learns from. StoreLost, TeacherInvalid, DataInvalid."""
    order, data = host.order, host.order.dataset

    def fetch(progress: Progress) -> tuple[Path, Dataset | None]:
        teacher = local_folder(url_of(order.teacher_source, order.store), progress=progress)
        if data is None:
            return teacher, None
        return teacher, Dataset(data, local_folder(url_of(data.source, order.store), DATA[data.format], progress))

    def check(progress: Progress) -> None:
        check_registered(order, teacher, progress)
        folder_sha256(teacher, progress)  # kept for when it is asked for, if it takes long

    teacher, dataset = host.waited("fetched", fetch)
    host.waited("hashed", check)
    host.log("info", f"The teacher is what was registered, sha256 {order.teacher_sha256[:12]}….")
    return teacher, dataset


def _word(error: Exception) -> str:
    """What a rank's peers must know of its failure."""
    reason = REASONS.get(type(error), Reason.TRAINING_ERROR)
    told = isinstance(error, TeacherInvalid | DataInvalid)  # their text is for the user, whoever raised them
    message = str(error) if told else f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))[-4000:]
    return json.dumps({"reason": reason, "message": message[:4000], "traceback": trace})


def _device() -> torch.device:
    mine = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    if not mine:
        return torch.device("cpu")
    visible = os.environ["CUDA_VISIBLE_DEVICES"].split(",")  # Ray Train shows every worker all GPUs of the node's group
    device = torch.device("cuda", visible.index(mine[0]))
    torch.cuda.set_device(device)
    return device
