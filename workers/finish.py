"""From trained weights to a student: judged beside its teacher, written out, opened again and compared.

Rank 0 alone does this; the other ranks have nothing to wait for.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch
from torch import Tensor

from service.methods import METHODS
from service.observations import Figures
from service.spec import JobSpec
from workers import artifact
from workers.diffusion.sampler import SamplerSpec, sample, seeded
from workers.evaluate.evaluator import (
    Evaluator,
    Generate,
    digits_evaluator,
    judges_digits,
    teacher_evaluator,
)
from workers.grid import grid_png
from workers.host import Host
from workers.model_card import Card, model_card
from workers.models.denoiser import Denoiser
from workers.pipeline_model import PipelineModel

COLUMNS = 10
TOLERANCE = 1e-4
"""Largest difference between an image of the trained network and one of the folder, in units where black is -1."""


class ExportMismatch(RuntimeError):
    """The exported folder does not give the student's images back."""


def export(
    teacher: artifact.Model,
    network: Denoiser,
    sampler: SamplerSpec,
    method: str,
    label: str,
    stage: int,
    spec: JobSpec,
    host: Host,
    training_seconds: float,
) -> None:
    """Judge, export, check and record one student.

    Args:
        teacher: whose student it is.
        network: with the averaged weights, which are the ones exported.
        sampler: how it is to be run; it is judged at each of `sampler.steps`.
        label: unique within the job, 'progressive-4'.

    Raises:
        ExportMismatch: the folder, loaded back, gives other images than `network`.
    """
    host.phase("evaluating")
    student = network.eval().to(host.device)
    guidance, prompts = learnt_guidance(spec, stage), spec.prompts or ()
    conditions = teacher.num_classes and min(teacher.num_classes, spec.evaluation.samples // 2)  # two of each at least

    def generate_teacher(labels: torch.Tensor | None, seeds: list[int], steps: int) -> torch.Tensor:
        return teacher.generate(labels, seeds, steps, guidance)

    with tempfile.TemporaryDirectory(prefix="fewstep-student-") as name:
        folder = Path(name)
        teacher.write_student(folder, network, sampler)
        opened = artifact.open_model(folder, sampler.steps, prompts, host.device, spec.compute.offload)
        check_same_images(student, sampler, opened)
        check_plain_diffusers(opened, sampler, prompts)

        evaluator = (
            digits_evaluator(teacher.num_classes)
            if judges_digits(teacher.image_size, teacher.num_classes)
            else teacher_evaluator(
                generate_teacher, conditions, spec.evaluation.teacher_steps, spec.evaluation.samples, teacher.batch
            )
        )
        samples, teacher_sha256 = spec.evaluation.samples, artifact.folder_sha256(teacher.folder)
        who = f"{teacher_sha256} guidance={guidance:g}{prompts_identity(prompts)}"
        figures = {n: evaluator.figures(opened.generate, n, samples) for n in sampler.steps}
        teacher_figures = {
            n: kept_figures(host, evaluator, generate_teacher, n, samples, who)
            for n in sorted({spec.evaluation.teacher_steps, *sampler.steps}, reverse=True)
        }
        grid = side_by_side(generate_teacher, spec.evaluation.teacher_steps, opened)

        host.phase("exporting")
        settings = METHODS[method]
        card = Card(
            label=label,
            method_title=settings.title,
            paper=settings.paper,
            teacher=spec.teacher,
            teacher_sha256=teacher_sha256,
            guidance_scale=guidance,
            sampler=type(opened.scheduler).__name__,
            steps=sampler.steps,
            image_size=opened.image_size,
            num_classes=None if opened.text else opened.num_classes,
            prompts=tuple(prompts),
            call=opened.plain_call(sampler) if isinstance(opened, PipelineModel) else None,
            parameters=opened.parameters,
            training_seconds=training_seconds,
            samples=samples,
            evaluator=evaluator.identity,
            figures=figures,
            teacher_figures=teacher_figures,
        )
        (folder / "grid.png").write_bytes(grid)
        (folder / "README.md").write_text(model_card(card), encoding="utf-8")
        record = {
            "label": label,
            "method": method,
            "stage": stage,
            "steps": list(sampler.steps),
            "parameters": opened.parameters,
            "training_seconds": training_seconds,
            "image_size": list(opened.image_size),
            "num_classes": None if opened.text else opened.num_classes,
            "text": opened.text,
            "figures": {n: f.model_dump() for n, f in figures.items()},
            "teacher_figures": {n: f.model_dump() for n, f in teacher_figures.items()},
        }
        lineage = {
            "lineage": {"teacher": spec.teacher, "teacher_sha256": teacher_sha256, "guidance_scale": guidance},
            "evaluation": {"evaluator": evaluator.identity, "samples": samples, "batch": evaluator.batch},
            "spec": spec.resolved().model_dump(mode="json"),
            "software": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        }
        sha256 = artifact.write_manifest(folder, sampler, record | lineage)
        check_same_images(student, sampler, artifact.load_student(folder, prompts, host.device, spec.compute.offload))
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        host.student(folder, grid, record | {"bytes": size, "sha256": sha256})


def learnt_guidance(spec: JobSpec, stage: int) -> float:
    """The teacher's guidance scale that the student of `stage` has learnt: of the last stage so far that set one."""
    scales = [s.method.guidance_scale for s in spec.chain()[: stage + 1] if s.method.guidance_scale != 1]
    return scales[-1] if scales else 1.0


def kept_figures(host: Host, evaluator: Evaluator, generate: Generate, steps: int, samples: int, who: str) -> Figures:
    """The teacher's figures, taken once for all jobs that judge it in the same way."""
    key = f"teacher={who} evaluator={evaluator.identity} steps={steps} samples={samples}"
    kept = host.cached(key, lambda: evaluator.figures(generate, steps, samples).model_dump(mode="json"))
    return Figures.model_validate(kept)


def prompts_identity(prompts: Sequence[str]) -> str:
    """What tells apart what a teacher makes of these prompts; nothing where there are none."""
    return f" prompts={hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()}" if prompts else ""


def check_same_images(student: Denoiser, sampler: SamplerSpec, opened: artifact.Model) -> None:
    """Compare images of the trained network, sampled by the training core, with those of the opened folder."""
    count = min(32, opened.batch)
    labels = None if student.num_classes is None else torch.arange(count) % student.num_classes
    for steps in sampler.steps:
        device = next(student.parameters()).device
        on_device = None if labels is None else labels.to(device)
        drawn = sample(student, sampler, steps, on_device, seeded(range(count)), device)
        _refuse_difference(opened.decode(drawn).clamp(-1, 1), opened.generate(labels, list(range(count)), steps), steps)


def check_plain_diffusers(opened: artifact.Model, sampler: SamplerSpec, prompts: Sequence[str]) -> None:
    """Compare the images of a pipeline's folder with those of plain diffusers, where no noise is drawn on the way."""
    if not isinstance(opened, PipelineModel):
        return  # such a folder is run by its own network and scheduler already
    for steps in sampler.steps:
        if sampler.kind == "ddim" or steps == 1:
            seeds, labels = [0, 1], torch.arange(2) % (opened.num_classes or 1)
            plain = opened.plain([prompts[i] for i in labels] if prompts else labels.tolist(), seeds, steps)
            _refuse_difference(opened.generate(labels, seeds, steps), plain.clamp(-1, 1), steps)


def _refuse_difference(ours: Tensor, folders: Tensor, steps: int) -> None:
    difference = (ours.cpu() - folders.cpu()).abs().max().item()
    if not difference <= TOLERANCE:  # NaN is a mismatch as well
        raise ExportMismatch(
            f"at {steps} steps the exported folder's images differ from the student's by up to {difference:.2g}; "
            f"{TOLERANCE:g} is allowed"
        )


def side_by_side(teacher: Generate, teacher_steps: int, student: artifact.Model) -> bytes:
    """A PNG grid: the teacher's row above the student's rows; column i has seed i, and class i if there are classes."""
    columns = min(student.num_classes or COLUMNS, COLUMNS)  # prompts count as classes
    labels = None if student.num_classes is None else torch.arange(columns)
    seeds = list(range(columns))
    rows = [teacher(labels, seeds, teacher_steps)]
    names = [f"teacher, {teacher_steps} steps"]
    for n in sorted(student.steps, reverse=True):
        rows.append(student.generate(labels, seeds, n))
        names.append(f"student, {n} step{'' if n == 1 else 's'}")
    return grid_png(rows, labels=names)
