"""The peak of a job's tensors, measured while its method trains on a CPU, and what was estimated beforehand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from large import large
from peak import Peak
from specs import title
from torch import nn

from service import memory
from service.folder import StoredFolder
from service.inspection import inspect
from service.memory import Costs, Memory
from service.spec import JobSpec
from service.status import Wish
from service.storage import Storage
from workers import stages
from workers.artifact import load_student
from workers.compute import hasten, lay_out
from workers.data.source import ImageSource
from workers.pipeline_model import PipelineModel
from workers.preview import Preview
from workers.state import State
from workers.trainer import Cadence, Trainer

NEVER = 1_000_000
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


class QuietHost:
    """Keeps nothing."""

    rank, world_size, device = 0, 1, torch.device("cpu")

    def wish(self) -> Wish:
        return Wish.RUN

    def metrics(self, step: int, stage: int, values: dict[str, float]) -> None:
        """Nobody reads them."""

    def sample(self, step: int, stage: int, role: str, sampling_steps: int, png: bytes) -> None:
        """Nobody looks."""

    def save_checkpoint(self, step: int, folder: Path) -> None:
        """Nobody resumes."""


def measure(name: str, method: dict[str, Any], compute: dict[str, Any], folder: Path) -> Row:
    """Train one stage on random images, from a teacher that is made in `folder`."""
    folder = large(name, folder / "teacher")
    facts = inspect(StoredFolder(Storage(folder.parent.as_uri()), folder.name))
    assert facts.footprint is not None
    told = {"prompts": PROMPTS if facts.text else None, "method": method, "compute": compute}
    spec = JobSpec.model_validate({"teacher": "t"} | told)
    conditions = len(PROMPTS) if facts.text else facts.num_classes
    estimate = memory.peak(spec, Costs(facts.parameters, facts.footprint, conditions))

    model = load_student(folder, spec.prompts or ())
    teacher, settings = model.denoiser, spec.chain()[0].method
    modules: list[nn.Module] = [teacher]
    if isinstance(model, PipelineModel):
        modules += [part for part in model.pipe.components.values() if isinstance(part, nn.Module)]
    with Peak(modules) as peak:
        lay_out(teacher, spec.compute)
        built = stages.build(settings, teacher)
        hasten([built.teacher, *built.trainable.values(), *built.followers.values()], spec.compute)
        labels = None if teacher.num_classes is None else torch.arange(8) % teacher.num_classes
        images = torch.randn(8, *teacher.shape)
        source = None if built.data_need == "none" else ImageSource(images, labels, torch.randn_like(images))
        preview = Preview(QuietHost(), teacher.num_classes, model.decode)  # type: ignore[arg-type]
        cadence = Cadence(NEVER, NEVER)
        Trainer(built, source, QuietHost(), State(), cadence, 0, preview, spec.compute).run()  # type: ignore[arg-type]
    return Row(title(name, method, compute), estimate, peak.highest)
