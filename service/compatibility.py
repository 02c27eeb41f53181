"""Which methods a teacher and a dataset can feed: what cannot work is refused at submission, not after training."""

from collections.abc import Iterator

from service.errors import InvalidRequest, Pointer
from service.families import EDM_SCHEDULERS, FLOWS, ONE_SIZE, UNET2D
from service.methods import METHODS
from service.methods.base import MethodSettings
from service.spec import JobSpec
from service.tables import Dataset, Teacher

IMAGES = [1, 8, 8]
"""[C, H, W] of the one set of training images that ships, the digits."""


def check(spec: JobSpec, teacher: Teacher, dataset: Dataset | None = None) -> None:
    """InvalidRequest names every field that does not fit the teacher or the dataset, and what would."""
    wrong = [Pointer(field, detail) for field, detail in _asked_by(spec, teacher, dataset)]
    if spec.aspect_buckets:
        wrong += [Pointer("/aspect_buckets", detail) for detail in _not_sorted(spec, teacher, dataset)]
    if spec.evaluation.prompts is not None and not teacher.text:
        wrong.append(Pointer("/evaluation/prompts", f"Remove them: teacher '{teacher.name}' takes no text."))
    for i, stage in enumerate(spec.chain()):
        at = f"/stages/{i}/method" if spec.stages is not None else "/method"
        wrong += [Pointer(f"{at}/{field}", detail) for field, detail in _misfits(stage.method, teacher, dataset)]
    if wrong:
        raise InvalidRequest("; ".join(f"{w.pointer}: {w.detail}" for w in wrong), wrong)


def _asked_by(spec: JobSpec, teacher: Teacher, dataset: Dataset | None) -> Iterator[tuple[str, str]]:
    """What is wrong with that which the teacher is asked by: prompts, captions or classes."""
    name = f"teacher '{teacher.name}'"
    if not teacher.text and spec.prompts is not None:
        yield "/prompts", f"Remove them: {name} takes no text."
    if teacher.text and spec.prompts is None and dataset is None:
        yield (
            "/prompts",
            f"Teacher '{teacher.name}' makes images of text; list the prompts that it is to be asked for, or name a "
            "registered dataset with captions in `data`.",
        )
    if dataset is None:
        return
    data = f"dataset '{dataset.name}'"
    if teacher.text:
        if dataset.content != "captions":
            yield (
                "/data",
                f"The images of {data} have no captions, and {name} is asked by text: add a metadata.jsonl with a "
                "line for each image, or a .txt beside each in its tar, and register it under another name.",
            )
        elif spec.prompts is not None:
            yield "/prompts", f"Remove them, or `data`: {name} is asked by the captions of {data}, not by both."
    elif dataset.format == "prompts":
        yield "/data", f"Remove it: {data} holds prompts alone, and {name} takes no text."
    elif teacher.num_classes is not None and dataset.classes is None:
        yield (
            "/data",
            f"The images of {data} have no classes, and {name} is asked by class: put the images of each class into "
            "a folder of its own, or give each a .cls in its tar or a ClassLabel, and register it under another name.",
        )
    elif teacher.num_classes is not None and dataset.classes is not None and len(dataset.classes) > teacher.num_classes:
        yield (
            "/data",
            f"Dataset '{dataset.name}' has {len(dataset.classes)} classes, and {name} knows {teacher.num_classes}: "
            "register a dataset without the others.",
        )


def _not_sorted(spec: JobSpec, teacher: Teacher, dataset: Dataset | None) -> Iterator[str]:
    """Why images cannot be brought to several sizes."""
    if teacher.family in ONE_SIZE:
        yield f"Set it to false: the network of teacher '{teacher.name}' takes images of its own size alone."
    if dataset is None or dataset.format == "prompts":
        yield "Set it to false, or name a dataset of images in `data`: there are none to be brought to several sizes."
    elif all(stage.method.data() != "images" for stage in spec.chain()):
        kinds = ", ".join(dict.fromkeys(stage.method.kind for stage in spec.chain()))
        yield f"Set it to false: {kinds} as set here learns from no images of a dataset."


def _misfits(method: MethodSettings, teacher: Teacher, dataset: Dataset | None) -> Iterator[tuple[str, str]]:
    """Field and sentence. A sentence on the method itself names those that fit."""
    found = dict(_by_nature(method, teacher))
    by_itself = "kind" in found
    if not by_itself and method.data() == "images" and not _has_images(teacher, dataset):
        there = (
            f"dataset '{dataset.name}' holds prompts alone"
            if dataset is not None
            else f"there are only digits of {IMAGES}, where teacher '{teacher.name}' makes {list(teacher.image_size)}"
        )
        found["kind"] = (
            f"{method.kind} as it is set needs training images, and {there}: register a dataset of images with "
            "POST /v1/datasets and name it in `data`."
        )
    if "kind" in found:
        these = "These fit" if by_itself else "These need none"
        found["kind"] += f" {these}: {', '.join(_fitting(teacher, by_itself and _has_images(teacher, dataset)))}."
    yield from found.items()


def _by_nature(method: MethodSettings, teacher: Teacher) -> Iterator[tuple[str, str]]:
    """What does not fit whatever images there are."""
    name = f"teacher '{teacher.name}'"
    if teacher.num_classes is None and not teacher.text:
        if method.needs_classes:
            yield "kind", f"{method.kind} learns guidance, and {name} knows no classes to guide to."
        for field, off in ({} if method.needs_classes else method.guidance()).items():
            yield field, f"Set it to {off:g}: {name} knows no classes that it could be guided to."
    if teacher.family in FLOWS and not method.fits_flows:
        yield (
            "kind",
            f"{name} is a rectified flow, and no scheduler of diffusers takes the steps of {method.kind} on one.",
        )
    if teacher.scheduler in EDM_SCHEDULERS:
        edm = f"{name} has EDM's preconditioning, and no scheduler of diffusers"
        if not method.fits_flows:
            yield "kind", f"{edm} takes the steps of {method.kind} under it."
        elif method.renoises():
            yield (
                "steps",
                f"Set it to 1: {edm} adds noise between steps under it, as the student of {method.kind} does.",
            )
    if teacher.family != UNET2D:
        if method.own_network():
            yield (
                "kind",
                f"{method.kind} tells its student more than a pipeline does, such as where a step leads, and the "
                f"network of {name} has no input for that; a UNet2DModel can be given one.",
            )
        for field in ("student_width", "student_depth"):
            if getattr(method, field) != 1:
                yield field, f"Set it to 1: the student of {name} runs in its pipeline, with a network of its size."


def _has_images(teacher: Teacher, dataset: Dataset | None) -> bool:
    if dataset is not None:
        return dataset.format != "prompts"
    return teacher.family == UNET2D and list(teacher.image_size) == IMAGES


def _fitting(teacher: Teacher, images: bool) -> list[str]:
    """The methods that, with their defaults, fit a teacher with or without training images."""
    defaults = [m(kind=kind) for kind, m in METHODS.items()]
    return [m.kind for m in defaults if (images or m.data() != "images") and not any(_by_nature(m, teacher))]
