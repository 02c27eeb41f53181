"""From trained weights to a student: judged beside its teacher, written out, opened again and compared.

Rank 0 alone does this; the other ranks have nothing to wait for.
"""

import hashlib
import json
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from workers.side_by_side import shown, side_by_side

CHECKED = 32
"""Images at most that the exported folder has to give back."""
TOLERANCE = 1e-4
"""Largest difference between an image of the trained network and one of the folder, in units where black is -1."""


class ExportMismatch(RuntimeError):
    """The exported folder does not give the student's images back."""


def export(
    teacher: artifact.Model,
    network: Callable[[], Denoiser],
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

    Teacher, trained network and opened folder take turns on the device, which holds one of them at a time.

    Args:
        teacher: whose student it is; it ends on the CPU.
        network: makes it, with the averaged weights, which are the ones exported; it is let go of when it is written.
        sampler: how it is to be run; it is judged at each of `sampler.steps`.
        label: unique within the job, 'progressive-4'.
        features: in which images are compared; None for pixels, or what knows the digits.
        lora: what leads from the teacher to the network, if it is a low-rank update.

    Raises:
        ExportMismatch: the folder, loaded back, gives other images than the network; or so does the teacher's pipeline,
            with the update loaded into it.
    """
    host.phase("evaluating")
    guidance, prompts = learnt_guidance(spec, stage), teacher.prompts
    known = len(prompts) or teacher.num_classes  # of a dataset's captions, the student's folder is told the first
    conditions = known and min(known, spec.evaluation.samples // 2)  # two of each at least
    teacher.to("cpu")

    def generate_teacher(asked: Asked, seeds: list[int], steps: int) -> Tensor:
        return teacher.generate(asked, seeds, steps, guidance)

    with tempfile.TemporaryDirectory(prefix="fewstep-student-") as name:
        folder = Path(name)
        drawn = write_student(folder, teacher, network(), sampler, host.device)
        tuned = {}
        if lora and isinstance(teacher, PipelineModel):
            teacher.write_lora(folder, lora)
            with on(host.device, teacher):
                tuned = with_lora(teacher, folder, sampler)
        opened = artifact.open_model(folder, sampler.steps, prompts, host.device, spec.compute.offload)
        check_same_images(drawn, opened)
        check_plain_diffusers(opened, sampler, prompts)
        check_lora(tuned, opened)
        opened.to("cpu")

        if features:
            features.to(host.device)
        samples, teacher_steps = spec.evaluation.samples, spec.evaluation.teacher_steps
        teacher_sha256 = artifact.folder_sha256(teacher.folder)
        who = f"{teacher_sha256} guidance={guidance:g}{prompts_identity(prompts)}"
        asked = spec.evaluation.prompts or prompts

        def keep(key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
            return host.cached_tensors(f"teacher={who} seen={key}", make)

        def shown_of(generate: Generate, steps: int) -> Tensor:
            return shown(generate, steps, asked, teacher.num_classes, teacher.batch)

        with on(host.device, teacher):
            evaluator = (
                digits_evaluator(teacher.num_classes, features=features)
                if judges_digits(teacher.image_size, teacher.num_classes)
                else teacher_evaluator(
                    generate_teacher, conditions, teacher_steps, samples, teacher.batch, features, keep
                )
            )
            paired = Paired.of(
                generate_teacher,
                teacher_steps,
                *questions(spec.evaluation.prompts, prompts, conditions),
                features,
                teacher.batch,
                keep,
            )
            teacher_figures = {
                n: kept_figures(host, evaluator, paired, generate_teacher, n, samples, who)
                for n in sorted({teacher_steps, *sampler.steps}, reverse=True)
            }
            rows = [("teacher", teacher_steps, shown_of(generate_teacher, teacher_steps))]
        with on(host.device, opened):
            figures = {n: judged(evaluator, paired, opened.generate, n, samples) for n in sampler.steps}
            rows += [("student", n, shown_of(opened.generate, n)) for n in sorted(sampler.steps, reverse=True)]
        grid = side_by_side(rows, asked)

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
        del opened
        sha256 = artifact.write_manifest(folder, sampler, record | lineage)
        check_same_images(drawn, artifact.load_student(folder, prompts, host.device, spec.compute.offload))
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        host.student(folder, grid, record | {"bytes": size, "sha256": sha256})


@contextmanager
def on(device: torch.device, model: artifact.Model | Denoiser) -> Iterator[None]:
    """Within, it is on the device; after that on the CPU, where it leaves room for another one."""
    model.to(device)
    try:
        yield
    finally:
        model.to("cpu")


def write_student(
    folder: Path, teacher: artifact.Model, network: Denoiser, sampler: SamplerSpec, device: torch.device
) -> dict[int, Tensor]:
    """Write the network into a folder. Returns by number of steps what it draws itself, [B, ...] on the CPU, for the
    seeds and labels 0, 1, 2, …"""
    network.eval()
    with on(device, network):
        drawn = drawn_by(network, sampler, min(CHECKED, teacher.batch), device)
    teacher.write_student(folder, network, sampler)
    return drawn


def drawn_by(network: Denoiser, sampler: SamplerSpec, count: int, device: torch.device) -> dict[int, Tensor]:
    """What a network draws, as `write_student` says."""
    labels = None if network.num_classes is None else (torch.arange(count) % network.num_classes).to(device)
    return {n: sample(network, sampler, n, labels, seeded(range(count)), device).cpu() for n in sampler.steps}


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
    """The teacher's figures, taken once for all jobs that judge it in the same way on devices of one kind."""
    machine = device_name(host.device)
    key = f"teacher={who} evaluator={evaluator.identity} {paired.identity} steps={steps} samples={samples} on={machine}"
    kept = host.cached(key, lambda: judged(evaluator, paired, generate, steps, samples).model_dump(mode="json"))
    return Figures.model_validate(kept)


def device_name(device: torch.device) -> str:
    """What figures of time hold for: a kind of GPU, or this machine."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.node()


def prompts_identity(prompts: Sequence[str]) -> str:
    """What tells apart what a teacher makes of these prompts; nothing where there are none."""
    return f" prompts={hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()}" if prompts else ""


def check_same_images(drawn: Mapping[int, Tensor], opened: artifact.Model) -> None:
    """Compare images of the trained network, see `write_student`, with those of the opened folder."""
    for steps, ours in drawn.items():
        labels = None if opened.num_classes is None else torch.arange(len(ours)) % opened.num_classes
        images = opened.decode(ours.to(opened.device)).clamp(-1, 1)
        _refuse_difference(images, opened.generate(labels, list(range(len(ours))), steps), steps)


def check_plain_diffusers(opened: artifact.Model, sampler: SamplerSpec, prompts: Sequence[str]) -> None:
    """Compare the images of a pipeline's folder with those of plain diffusers, where no noise is drawn on the way."""
    if not isinstance(opened, PipelineModel):
        return  # such a folder is run by its own network and scheduler already
    for steps in sampler.steps:
        if sampler.kind == "ddim" or steps == 1:
            seeds, labels = [0, 1], torch.arange(2) % (opened.num_classes or 1)
            plain = opened.plain([prompts[i] for i in labels] if prompts else labels.tolist(), seeds, steps)
            _refuse_difference(opened.generate(labels, seeds, steps), plain.clamp(-1, 1), steps)


def with_lora(teacher: PipelineModel, folder: Path, sampler: SamplerSpec) -> dict[int, Tensor]:
    """By number of steps, what plain diffusers makes of the teacher's pipeline when the folder's low-rank update is
    loaded into it; nothing where its class cannot load one."""
    if not teacher.loads_lora:
        return {}
    with teacher.as_student(folder, sampler):
        return {steps: _plain(teacher, steps) for steps in sampler.steps}


def check_lora(tuned: Mapping[int, Tensor], opened: artifact.Model) -> None:
    """Compare what plain diffusers makes of the student's folder with the images of `with_lora`."""
    for steps, images in tuned.items():
        assert isinstance(opened, PipelineModel)
        _refuse_difference(_plain(opened, steps), images, steps, "the teacher with the exported LoRA")


def _plain(model: PipelineModel, steps: int) -> Tensor:
    """[2, 3, H, W] on the CPU, of its first prompts or classes."""
    labels = (torch.arange(2) % (model.num_classes or 1)).tolist()
    with torch.random.fork_rng():
        torch.manual_seed(0)  # some pipelines hand no generator to their scheduler
        return model.plain([model.prompts[i] for i in labels] if model.prompts else labels, [0, 1], steps).cpu()


def _refuse_difference(ours: Tensor, theirs: Tensor, steps: int, whose: str = "the exported folder") -> None:
    difference = (ours.cpu() - theirs.cpu()).abs().max().item()
    if not difference <= TOLERANCE:  # NaN is a mismatch as well
        raise ExportMismatch(
            f"at {steps} steps {whose} gives images that differ from the student's by up to {difference:.2g}; "
            f"{TOLERANCE:g} is allowed"
        )
