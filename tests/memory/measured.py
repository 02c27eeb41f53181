"""The peak of a job's tensors, measured on a CPU, and what was estimated beforehand: of training by itself, and of
whole jobs."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from large import large
from peak import Peak
from specs import title
from torch import nn

from service import memory
from service.inspection import inspect
from service.memory import Costs, Memory, Phase
from service.spec import Evaluation, JobSpec
from service.status import Wish
from service.storage import Storage
from service.stored_folder import StoredFolder
from workers import stages
from workers.artifact import Model, load_student
from workers.compute import hasten, lay_out
from workers.data.dataset import look
from workers.data.source import ImageSource
from workers.evaluate import paired
from workers.models.denoiser import Denoiser
from workers.pipeline_model import PipelineModel
from workers.precision import exact
from workers.preview import Preview
from workers.run import FolderHost
from workers.state import State
from workers.trainer import Cadence, Trainer

NEVER, JUDGED = 1_000_000, 8
PROMPTS = [" ".join([word] * 26)[:104] for word in ("cat", "dogs", "boat")]
"""Z-Image's come to 128 tokens, as many as are reckoned with; the other families' are padded anyway."""


@dataclass(frozen=True)
class Row:
    """Of one job: the peak in bytes as it was estimated, in parts, and as it was measured."""

    name: str
    estimate: Memory
    measured: int

    @property
    def error(self) -> float:
        """As a share of what was measured."""
        return self.estimate.total / self.measured - 1

    def __str__(self) -> str:
        return f"{self.name}: {self.estimate.total / 1e6:.1f} MB of {self.measured / 1e6:.1f} MB, {self.error:+.1%}"


class QuietHost:
    """Keeps nothing but pairs."""

    rank, world_size, device = 0, 1, torch.device("cpu")

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def wish(self) -> Wish:
        return Wish.RUN

    def log(self, level: str, message: str) -> None:
        """Nobody reads it."""

    def cached_file(self, key: str, write: Callable[[Path], None]) -> Path:
        """Kept for this job alone."""
        file = self.folder / hashlib.sha256(key.encode()).hexdigest()
        if not file.exists():
            write(file)
        return file

    def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
        """Nobody reads them."""

    def sample(self, step: int, stage: int, role: str, sampling_steps: int, png: bytes) -> None:
        """Nobody looks."""

    def save_checkpoint(self, step: int, folder: Path) -> None:
        """Nobody resumes."""


def measure(name: str, method: dict[str, Any], compute: dict[str, Any], folder: Path) -> Row:
    """Train one stage on random images or on pairs, from a teacher that is made in `folder`."""
    spec, costs = job(name, method, compute, folder)
    host: Any = QuietHost(folder)
    model = load_student(folder / "teacher", spec.prompts or ())
    teacher, settings = model.denoiser, spec.chain()[0].method
    with Peak([teacher, *parts(model)]) as peak:
        lay_out(teacher, spec.compute)
        built = stages.build(settings, teacher)
        hasten([built.teacher, *built.trainable.values(), *built.followers.values()], spec.compute)
        if built.data_need == "images":
            source: Any = random_images(teacher)
        else:
            with exact():
                source = stages.data_source(built, host, 0, "")
        preview = Preview(host, teacher.num_classes, model.decode)
        cadence = Cadence(NEVER, NEVER)
        Trainer(built, source, host, State(), cadence, 0, preview, spec.compute).run()
    return Row(title(name, method, compute), memory.phases(spec, costs)["training"], peak.highest)


class PhaseHost(FolderHost):
    """Notes the peak before the students are judged, and from then on."""

    def __init__(self, folder: Path, peak: Peak) -> None:
        super().__init__(folder, torch.device("cpu"))
        self.peak, self.highest = peak, dict[Phase, int]()
        self._now: Phase = "training"

    def phase(self, phase: str) -> None:
        self.note()
        self._now = "training" if phase == "training" else "evaluating"

    def note(self) -> None:
        """What was highest until now."""
        self.highest[self._now] = max(self.highest.get(self._now, 0), self.peak.highest)
        self.peak.highest = self.peak.now


def measure_whole(
    name: str, method: dict[str, Any], compute: dict[str, Any], folder: Path, captions: int = 0
) -> list[Row]:
    """Run a job from a teacher that is made in `folder` to its exported student. A row of all until the last stage is
    over, one of judging and exporting, and one of both.

    It judges by fewer images than a spec may ask for, since of each a thumbnail is kept in the machine's memory, which
    here is the same.

    Args:
        captions: of a dataset that the teacher is asked by; 0 for the prompts of the spec.
    """
    spec, costs = job(name, method, compute, folder, captions)
    evaluation = Evaluation.model_construct(samples=JUDGED, teacher_steps=1, features=None, prompts=None)
    spec = spec.model_copy(update={"evaluation": evaluation, "checkpoint_every": NEVER, "preview_every": NEVER})
    dataset = None
    if captions:
        (folder / "prompts.txt").write_text("".join(f"{PROMPTS[i % 3]} {i}\n" for i in range(captions)))
        dataset = look(folder / "prompts.txt")
    peak, plain_to = Peak(), PipelineModel.to

    def to(model: PipelineModel, device: torch.device | str) -> PipelineModel:
        peak.add(parts(model))
        return plain_to(model, device)

    host = PhaseHost(folder / "run", peak)
    with (
        patch.object(PipelineModel, "to", to),
        patch.object(stages, "image_source", random_images),
        patch.object(paired, "PAIRS", JUDGED),
        peak,
    ):
        stages.run(spec, folder / "teacher", host, dataset)
    host.note()
    expected = memory.phases(spec, costs)
    before = max(expected["starting"], expected["training"], key=lambda found: found.total)
    named = title(name, method, compute) + (f", {captions} captions" if captions else "")
    return [
        Row(f"{named}: training", before, host.highest["training"]),
        Row(f"{named}: evaluating", expected["evaluating"], host.highest["evaluating"]),
        Row(named, memory.peak(spec, costs), max(host.highest.values())),
    ]


def job(
    name: str, method: dict[str, Any], compute: dict[str, Any], folder: Path, captions: int = 0
) -> tuple[JobSpec, Costs]:
    """A spec, and what its teacher costs, which is made in `folder`/teacher."""
    large(name, folder / "teacher")
    facts = inspect(StoredFolder(Storage(folder.as_uri()), "teacher"))
    assert facts.footprint is not None
    told = {"prompts": PROMPTS if facts.text and not captions else None, "method": method, "compute": compute}
    spec = JobSpec.model_validate({"teacher": "t"} | told)
    conditions = captions or len(PROMPTS) if facts.text else facts.num_classes
    return spec, Costs(facts.parameters, facts.footprint, conditions, captions > 0)


def parts(model: Model) -> Sequence[nn.Module]:
    """All models of a pipeline, or the network."""
    if isinstance(model, PipelineModel):
        return [part for part in model.pipe.components.values() if isinstance(part, nn.Module)]
    return [model.unet]


def random_images(teacher: Denoiser) -> ImageSource:
    images = torch.randn(8, *teacher.shape)
    labels = None if teacher.num_classes is None else torch.arange(8) % teacher.num_classes
    return ImageSource(images, labels)
