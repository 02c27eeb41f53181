"""The OpenAI images API as Fewstep's endpoints speak it, with the field's usual extensions."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.spec import Strict


class ImagesRequest(Strict):
    """`POST /v1/images/generations`. A text-to-image student needs a `prompt`; a class-conditional one takes
    `class_label`, or the class as `prompt`."""

    model: str = Field(
        min_length=1, max_length=200, description="An endpoint's name; `<name>:teacher` for its teacher."
    )
    prompt: str = Field(
        "",
        max_length=4000,
        description='What a text-to-image model draws. For a class-conditional model: the class, as in "7".',
    )
    class_label: int | None = Field(
        None, ge=0, description="Class of all images; overrides the prompt. Only for a class-conditional model."
    )
    n: int = Field(1, ge=1, le=16, description="Number of images.")
    size: str | None = Field(None, description="'WIDTHxHEIGHT'; must be the model's own size.")
    seed: int | None = Field(
        None, ge=0, le=2**63 - 17, description="Image i uses seed + i; drawn at random when absent."
    )
    num_inference_steps: int | None = Field(
        None, ge=1, le=1000, description="One of the steps the student is made for."
    )
    guidance_scale: float | None = Field(None, ge=0, le=100, description="Only for the teacher; students need none.")
    response_format: Literal["b64_json"] = "b64_json"
    output_format: Literal["png"] = "png"
    user: str | None = Field(None, max_length=200)

    @field_validator("size")
    @classmethod
    def looks_like_a_size(cls, size: str | None) -> str | None:
        if size is not None and size != "auto" and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", size):
            raise ValueError("size must look like '8x8', width first, or be 'auto'")
        return size


class Image(BaseModel):
    model_config = ConfigDict(extra="forbid")

    b64_json: str = Field(description="A PNG.")
    seed: int = Field(description="The seed that gives this image again.")


class ImagesAnswer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    created: int = Field(description="Unix seconds.")
    data: list[Image]
    model: str
    num_inference_steps: int
    duration_ms: float = Field(description="From the request's arrival at the gateway to its answer.")


class ModelCard(BaseModel):
    """An entry of `GET /v1/models`, with what a client needs to build a form."""

    model_config = ConfigDict(extra="forbid")

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["fewstep"] = "fewstep"
    steps: list[int] = Field(description="Allowed num_inference_steps, the default first; empty means any.")
    num_classes: int | None
    text: bool = Field(description="Whether it draws what `prompt` says.")
    image_size: list[int] = Field(description="[channels, height, width]")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


def endpoint_of(model: str) -> str:
    """The endpoint's name in a model's: `<name>`, or `<name>:teacher`."""
    return model.removesuffix(":teacher")
