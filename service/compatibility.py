"""Which methods a teacher can feed: what cannot work is refused at submission, not after hours of training."""

from collections.abc import Iterator

from service.errors import InvalidRequest, Pointer
from service.methods import METHODS
from service.methods.base import MethodSettings
from service.spec import JobSpec
from service.tables import Teacher

IMAGES = [1, 8, 8]
"""[C, H, W] of the one set of training images that ships, the digits."""


def check(spec: JobSpec, teacher: Teacher) -> None:
    """InvalidRequest names every field that does not fit the teacher, and what would."""
    wrong = []
    for i, stage in enumerate(spec.chain()):
        at = f"/stages/{i}/method" if spec.stages is not None else "/method"
        wrong += [Pointer(f"{at}/{field}", detail) for field, detail in _misfits(stage.method, teacher)]
    if wrong:
        raise InvalidRequest("; ".join(f"{w.pointer}: {w.detail}" for w in wrong), wrong)


def _misfits(method: MethodSettings, teacher: Teacher) -> Iterator[tuple[str, str]]:
    if teacher.num_classes is None:
        if method.needs_classes:
            yield "kind", f"{method.kind} learns guidance, and teacher '{teacher.name}' knows no classes to guide to."
        for field, off in ({} if method.needs_classes else method.guidance()).items():
            yield field, f"Set it to {off:g}: teacher '{teacher.name}' knows no classes that it could be guided to."
    if method.data() == "images" and list(teacher.image_size) != IMAGES:
        defaults = [m(kind=kind) for kind, m in METHODS.items() if not m.needs_classes]
        fitting = [m for m in defaults if m.data() != "images" and (teacher.num_classes or not m.guidance())]
        others = ", ".join(m.kind for m in fitting)
        yield (
            "kind",
            f"{method.kind} as it is set needs training images, and there are only digits of {IMAGES}, where teacher "
            f"'{teacher.name}' makes {list(teacher.image_size)}. These need none: {others}.",
        )
