"""Which methods a teacher can feed: what cannot work is refused at submission, not after hours of training."""

from collections.abc import Iterator

from service.errors import InvalidRequest, Pointer
from service.families import FLOWS, UNET2D
from service.methods import METHODS
from service.methods.base import MethodSettings
from service.spec import JobSpec
from service.tables import Teacher

IMAGES = [1, 8, 8]
"""[C, H, W] of the one set of training images that ships, the digits."""


def check(spec: JobSpec, teacher: Teacher) -> None:
    """InvalidRequest names every field that does not fit the teacher, and what would."""
    wrong = [Pointer("/prompts", detail) for detail in _prompts(spec, teacher)]
    for i, stage in enumerate(spec.chain()):
        at = f"/stages/{i}/method" if spec.stages is not None else "/method"
        wrong += [Pointer(f"{at}/{field}", detail) for field, detail in _misfits(stage.method, teacher)]
    if wrong:
        raise InvalidRequest("; ".join(f"{w.pointer}: {w.detail}" for w in wrong), wrong)


def _prompts(spec: JobSpec, teacher: Teacher) -> Iterator[str]:
    if teacher.text and spec.prompts is None:
        yield f"Teacher '{teacher.name}' makes images of text; list the prompts that it is to be asked for."
    if not teacher.text and spec.prompts is not None:
        yield f"Remove them: teacher '{teacher.name}' takes no text."


def _misfits(method: MethodSettings, teacher: Teacher) -> Iterator[tuple[str, str]]:
    """Field and sentence. A sentence on the method itself names those that fit."""
    found = dict(_by_nature(method, teacher))
    by_itself = "kind" in found
    if not by_itself and method.data() == "images" and not _is_of_the_images(teacher):
        found["kind"] = (
            f"{method.kind} as it is set needs training images, and there are only digits of {IMAGES}, where teacher "
            f"'{teacher.name}' makes {list(teacher.image_size)}."
        )
    if "kind" in found:
        these = "These fit" if by_itself else "These need none"
        found["kind"] += f" {these}: {', '.join(_fitting(teacher))}."
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


def _is_of_the_images(teacher: Teacher) -> bool:
    return teacher.family == UNET2D and list(teacher.image_size) == IMAGES


def _fitting(teacher: Teacher) -> list[str]:
    """The methods that, with their defaults, fit a teacher without training images."""
    defaults = [m(kind=kind) for kind, m in METHODS.items()]
    return [m.kind for m in defaults if m.data() != "images" and not any(_by_nature(m, teacher))]
