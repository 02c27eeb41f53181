"""What an images request asks of a model, or why it cannot be done."""

import json
import secrets
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from service.images import ImagesRequest, ModelCard


class Refusal(Exception):
    """An answer in OpenAI's error form."""

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.retry_after = status, code, message, param, retry_after

    def json(self) -> str:
        kind = "server_error" if self.status >= 500 or self.status == 429 else "invalid_request_error"
        return json.dumps({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})


class Routed(BaseModel):
    """One endpoint in the gateway's routing table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    app: str
    steps: tuple[int, ...]
    teacher_steps: int
    num_classes: int | None
    text: bool
    image_size: tuple[int, int, int]
    created: int
    with_teacher: bool

    @property
    def unconditional(self) -> bool:
        """Whether there is nothing to ask of it but images."""
        return self.num_classes is None and not self.text

    def cards(self) -> list[ModelCard]:
        """The models that it serves: the student and, if wanted, its teacher."""
        cards = [self._card(self.name, list(self.steps))]
        return cards + ([self._card(f"{self.name}:teacher", [])] if self.with_teacher else [])

    def _card(self, name: str, steps: list[int]) -> ModelCard:
        return ModelCard(
            id=name,
            created=self.created,
            steps=steps,
            num_classes=self.num_classes,
            text=self.text,
            image_size=list(self.image_size),
        )


@dataclass(frozen=True)
class Asked:
    """A request that can be done: as many images of one subject as there are seeds.

    subject: a class, the prompt of a text-to-image model, or None for an unconditional one.
    """

    teacher: bool
    subject: int | str | None
    seeds: tuple[int, ...]
    steps: int
    guidance: float | None


def resolve(request: ImagesRequest, model: Routed, teacher: bool) -> Asked:
    """Check `request` against the model that it names. Raises Refusal."""
    _check_size(request, model)
    seed = secrets.randbelow(2**32) if request.seed is None else request.seed  # JavaScript reads it back exactly
    return Asked(
        teacher=teacher,
        subject=_subject(request, model),
        seeds=tuple(range(seed, seed + request.n)),
        steps=_steps(request, model, teacher),
        guidance=_guidance(request, model, teacher),
    )


def _subject(request: ImagesRequest, model: Routed) -> int | str | None:
    if model.text:
        return _prompt(request)
    if model.num_classes is not None:
        return _label(request, model.num_classes)
    if request.class_label is not None:
        raise _invalid("class_label", f"{request.model} is unconditional: leave class_label out")
    if request.prompt.strip():
        raise _invalid("prompt", f'{request.model} is unconditional and cannot follow a prompt: send prompt ""')
    return None


def _prompt(request: ImagesRequest) -> str:
    if request.class_label is not None:
        raise _invalid("class_label", f"{request.model} has no classes: send a prompt, and leave class_label out")
    if not request.prompt.strip():
        raise _invalid("prompt", f'{request.model} draws what a prompt says and none was sent: send one, as in "a cat"')
    return request.prompt


def _label(request: ImagesRequest, classes: int) -> int:
    if request.class_label is not None:
        label, param = request.class_label, "class_label"
    elif request.prompt.strip().isdecimal():
        label, param = int(request.prompt), "prompt"
    else:
        said = f'the prompt "{request.prompt[:40]}" is none' if request.prompt.strip() else "none was sent"
        raise _invalid(
            "prompt",
            f"{request.model} draws one of {classes} classes and {said}: "
            f'send class_label from 0 to {classes - 1}, or the number as prompt, such as "{classes - 1}"',
        )
    if label >= classes:
        raise _invalid(param, f"{request.model} has the classes 0 to {classes - 1}, not {label}")
    return label


def _check_size(request: ImagesRequest, model: Routed) -> None:
    _, height, width = model.image_size
    if request.size not in (None, "auto", f"{width}x{height}"):
        raise _invalid("size", f"{request.model} makes images of {width}x{height} only: send that, or leave size out")


def _steps(request: ImagesRequest, model: Routed, teacher: bool) -> int:
    asked = request.num_inference_steps
    if teacher:
        return asked or model.teacher_steps
    if asked is not None and asked not in model.steps:
        made_for = " or ".join(map(str, model.steps))
        raise _invalid("num_inference_steps", f"{request.model} is made for {made_for} steps, not {asked}")
    return asked or model.steps[0]


def _guidance(request: ImagesRequest, model: Routed, teacher: bool) -> float | None:
    asked = request.guidance_scale
    if asked in (None, 1.0):
        return None
    if not teacher:
        raise _invalid("guidance_scale", f"{request.model} has its guidance built in: leave guidance_scale out")
    if model.unconditional:
        raise _invalid("guidance_scale", f"{request.model} is unconditional: leave guidance_scale out")
    return asked


def _invalid(param: str, message: str) -> Refusal:
    return Refusal(400, "invalid_value", message, param)
