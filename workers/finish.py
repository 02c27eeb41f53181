"""From trained weights to a student: judged beside its teacher, written out, opened again and compared.

Rank 0 alone does this; the other ranks have nothing to wait for.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import diffusers
import torch
from torch import Tensor

from service.errors import DataInvalid
from service.methods import METHODS
from service.observations import Figures
from service.spec import JobSpec
from workers import artifact
from workers.diffusion.sampler import SamplerSpec, sample, seeded
from workers.evaluate.evaluator import (
    Asked,
    Evaluator,
    Generate,
    digits_evaluator,
    judges_digits,
    teacher_evaluator,
)
from workers.evaluate.features import Features, open_features
from workers.evaluate.paired import Paired, questions
from workers.host import Host
from workers.model_card import Card, model_card
from workers.models.denoiser import Denoiser
from workers.pipeline_model import LORA, PipelineModel
from workers.side_by_side import side_by_side

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
    features: Features | None = None,
    lora: Mapping[str, Tensor] | None = None,
) -> None:
    """Judge, export, check and record one student.

    Args:
        teacher: whose student it is.
        network: with the averaged weights, which are the ones exported.
        sampler: how it is to be run; it is judged at each of `sampler.steps`.
        label: unique within the job, 'progressive-4'.
        features: in which images are compared; None for pixels, or what knows the digits.
        lora: what leads from the teacher to `network`, if it is a low-rank update.

    Raises:
        ExportMismatch: the folder, loaded back, gives other images than `network`; or the teacher's pipeline does, with
            the update loaded into it.
    """
    host.phase("evaluating")
    student = network.eval().to(host.device)
    guidance, prompts = learnt_guidance(spec, stage), teacher.prompts
    known = len(prompts) or teacher.num_classes  # of a dataset's captions, the student's folder is told the first
    conditions = known and min(known, spec.evaluation.samples // 2)  # two of each at least

    def generate_teacher(asked: Asked, seeds: list[int], steps: int) -> Tensor:
        return teacher.generate(asked, seeds, steps, guidance)

    if features:
        features.to(host.device)
    with tempfile.TemporaryDirectory(prefix="fewstep-student-") as name:
        folder = Path(name)
        teacher.write_student(folder, network, sampler)
        opened = artifact.open_model(folder, sampler.steps, prompts, host.device, spec.compute.offload)
        check_same_images(student, sampler, opened)
        check_plain_diffusers(opened, sampler, prompts)
        if lora and isinstance(teacher, PipelineModel) and isinstance(opened, PipelineModel):
            teacher.write_lora(folder, lora)
            check_lora(teacher, opened, sampler, prompts)

        samples, teacher_steps = spec.evaluation.samples, spec.evaluation.teacher_steps
        teacher_sha256 = artifact.folder_sha256(teacher.folder)
        who = f"{teacher_sha256} guidance={guidance:g}{prompts_identity(prompts)}"

        def keep(key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
            return host.cached_tensors(f"teacher={who} seen={key}", make)

        evaluator = (
            digits_evaluator(teacher.num_classes, features=features)
            if judges_digits(teacher.image_size, teacher.num_classes)
            else teacher_evaluator(generate_teacher, conditions, teacher_steps, samples, teacher.batch, features, keep)
        )
        paired = Paired.of(
            generate_teacher,
            teacher_steps,
            *questions(spec.evaluation.prompts, prompts, conditions),
            features,
            teacher.batch,
            keep,
        )
        figures = {n: judged(evaluator, paired, opened.generate, n, samples) for n in sampler.steps}
        teacher_figures = {
            n: kept_figures(host, evaluator, paired, generate_teacher, n, samples, who)
            for n in sorted({teacher_steps, *sampler.steps}, reverse=True)
        }
        grid = side_by_side(generate_teacher, teacher_steps, opened, spec.evaluation.prompts or prompts)

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
            lora=(folder / LORA).exists(),
            loads_lora=isinstance(opened, PipelineModel) and opened.loads_lora,
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


def opened_features(spec: JobSpec, host: Host) -> Features | None:
    """The model in whose features the job wants its students judged, on the CPU. DataInvalid."""
    name = spec.evaluation.features
    if name is None:
        return None
    try:
        folder = host.fetch(name)
    except FileNotFoundError as error:
        raise DataInvalid(f"evaluation.features: {error}; put the model there, or correct the path.") from error
    return open_features(folder, name)


def judged(evaluator: Evaluator, paired: Paired, generate: Generate, steps: int, samples: int) -> Figures:
    """All figures of a sampler."""
    return paired.complete(evaluator.figures(generate, steps, samples), generate, steps)


def kept_figures(
    host: Host, evaluator: Evaluator, paired: Paired, generate: Generate, steps: int, samples: int, who: str
) -> Figures:
    """The teacher's figures, taken once for all jobs that judge it in the same way."""
    key = f"teacher={who} evaluator={evaluator.identity} {paired.identity} steps={steps} samples={samples}"
    kept = host.cached(key, lambda: judged(evaluator, paired, generate, steps, samples).model_dump(mode="json"))
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


def check_lora(teacher: PipelineModel, opened: PipelineModel, sampler: SamplerSpec, prompts: Sequence[str]) -> None:
    """Compare what plain diffusers makes of the student's folder with what it makes of the teacher's pipeline, when the
    folder's low-rank update is loaded into it; where its class can load one."""
    if not teacher.loads_lora:
        return
    labels = torch.arange(2) % (opened.num_classes or 1)
    asked = [prompts[i] for i in labels] if prompts else labels.tolist()

    def images(model: PipelineModel, steps: int) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # some pipelines hand no generator to their scheduler
            return model.plain(asked, [0, 1], steps)

    with teacher.as_student(opened):
        tuned = {steps: images(teacher, steps) for steps in sampler.steps}
    for steps in sampler.steps:
        _refuse_difference(images(opened, steps), tuned[steps], steps, "the teacher with the exported LoRA")


def _refuse_difference(ours: Tensor, theirs: Tensor, steps: int, whose: str = "the exported folder") -> None:
    difference = (ours.cpu() - theirs.cpu()).abs().max().item()
    if not difference <= TOLERANCE:  # NaN is a mismatch as well
        raise ExportMismatch(
            f"at {steps} steps {whose} gives images that differ from the student's by up to {difference:.2g}; "
            f"{TOLERANCE:g} is allowed"
        )
