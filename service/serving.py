"""From endpoint rows to Ray Serve's declarative config: the gateway, and one application per served student."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Served:
    """One endpoint as the gateway and its replica need to know it."""

    name: str
    app: str
    student_url: str
    teacher_source: str | None
    steps: tuple[int, ...]
    teacher_steps: int
    num_classes: int | None
    image_size: tuple[int, int, int]
    created: int
