"""The README.md of a student's folder: what it is, how good it is, how to run it."""

import json
from dataclasses import dataclass
from typing import Any

import yaml

from service.observations import Figures


@dataclass(frozen=True)
class Card:
    """What the card tells. `guidance_scale` is the teacher's that the student has learnt, 1 for none.

    `call`: the pipeline's class and its arguments; None for a ConsistencyModelPipeline. `lora`: whether the folder
    holds a low-rank update of the teacher as well; `loads_lora`: whether the pipeline's class can load it.
    """

    label: str
    method_title: str
    paper: str
    teacher: str
    teacher_sha256: str
    guidance_scale: float
    sampler: str
    steps: tuple[int, ...]
    image_size: tuple[int, ...]
    num_classes: int | None
    prompts: tuple[str, ...]
    call: tuple[str, dict[str, Any]] | None
    lora: bool
    loads_lora: bool
    parameters: int
    training_seconds: float
    samples: int
    evaluator: str
    figures: dict[int, Figures]
    teacher_figures: dict[int, Figures]


def model_card(card: Card) -> str:
    """Markdown with YAML front matter, as model hubs read it."""
    front = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image" if card.prompts else "unconditional-image-generation",
        "tags": ["fewstep", "distillation", "few-step", *([] if card.num_classes is None else ["class-conditional"])],
    }
    channels, height, width = card.image_size
    pipeline = card.call[0] if card.call else "ConsistencyModelPipeline"
    conditions = "unconditional" if card.num_classes is None else f"classes 0 to {card.num_classes - 1}"
    if card.prompts:
        conditions = f"text, learnt from {len(card.prompts)} prompt{'' if len(card.prompts) == 1 else 's'}"
    guidance = f" under guidance scale {card.guidance_scale:g}" if card.guidance_scale != 1 else ""
    return f"""---
{yaml.safe_dump(front, sort_keys=False).strip()}
---

# {card.label}

A student of the diffusion model **{card.teacher}**{guidance}, made with {card.method_title.lower()} ({card.paper}). It
draws an image in {_steps(card.steps)}; plain diffusers runs it.

![The teacher's images above the student's, from the same seeds](grid.png)

## Use

```python
import torch
from diffusers import {pipeline}

pipeline = {pipeline}.from_pretrained(".")  # this folder
{_call(card)}
images[0].save("image.png")
```

One generator per image makes each image depend on its own seed alone.
{_lora(card, pipeline)}
## Quality

{_table(card)}

{_reading(card)}

## Facts

| | |
|---|---|
| images | {channels} × {height} × {width}, {conditions} |
| sampler | {card.sampler}, made for {_steps(card.steps)} |
| parameters | {card.parameters:,} |
| training time | {card.training_seconds:.0f} s |
| teacher's SHA-256 | `{card.teacher_sha256}` |

`manifest.json` holds the whole job specification and the SHA-256 of every file.
"""


def _steps(steps: tuple[int, ...]) -> str:
    *others, last = [str(n) for n in sorted(steps)]
    return (f"{', '.join(others)} or {last}" if others else last) + (" step" if last == "1" else " steps")


def _call(card: Card) -> str:
    if card.call:
        asked = json.dumps(list(card.prompts[:2]) or [0, 1], ensure_ascii=False)
        told = "".join(f"\n    {name}={value!r}," for name, value in card.call[1].items())
        return f"""images = pipeline(
    {asked},
    num_inference_steps={card.steps[0]},{told}
    generator=[torch.Generator().manual_seed(seed) for seed in range({len(card.prompts[:2]) or 2})],
).images"""
    columns = min(card.num_classes or 10, 10)
    labels = "" if card.num_classes is None else f"\n    class_labels=list(range({columns})),"
    return f"""images = pipeline(
    batch_size={columns},{labels}
    num_inference_steps={card.steps[0]},
    generator=[torch.Generator().manual_seed(seed) for seed in range({columns})],
).images"""


COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("Fréchet ↓", "frechet", ".2f"),
    ("kernel ↓", "kernel", ".3f"),
    ("CMMD ↓", "cmmd", ".3f"),
    ("CLIP score ↑", "clip_score", ".2f"),
    ("agreement ↓", "agreement", ".3f"),
    ("accuracy", "accuracy", ".3f"),
    ("precision", "precision", ".2f"),
    ("recall", "recall", ".2f"),
    ("diversity", "diversity", ".2f"),
    ("nearest neighbour", "nearest_neighbour_ratio", ".2f"),
    ("ms per image", "ms_per_image", ".2f"),
)
"""Heading, field and format; what no row knows is left out."""


def _lora(card: Card, pipeline: str) -> str:
    if not card.lora:
        return ""
    what = (
        "`pytorch_lora_weights.safetensors` is all that was learnt: a low-rank update (LoRA) of the teacher, with "
        "alpha equal to its rank."
    )
    if not card.loads_lora:
        return f"\n{what} A {pipeline} cannot load it by itself.\n"
    return f'''
{what} The teacher's pipeline with it and with this folder's scheduler is this student:

```python
import torch
from diffusers import {card.sampler}, {pipeline}

pipeline = {pipeline}.from_pretrained("{card.teacher}", torch_dtype=torch.float32)  # the teacher
pipeline.load_lora_weights("pytorch_lora_weights.safetensors")
pipeline.scheduler = {card.sampler}.from_pretrained(".", subfolder="scheduler")
```
'''


def _table(card: Card) -> str:
    rows = [(f"teacher, {n}", f) for n, f in sorted(card.teacher_figures.items(), reverse=True)]
    rows += [(f"**student, {n}**", f) for n, f in sorted(card.figures.items(), reverse=True)]
    columns = [column for column in COLUMNS if any(getattr(f, column[1]) is not None for _, f in rows)]
    lines = [["", *(head for head, _, _ in columns)], ["---"] * (1 + len(columns))]
    for name, f in rows:
        values = [(getattr(f, field), form) for _, field, form in columns]
        lines.append([name, *("–" if value is None else format(value, form) for value, form in values)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _reading(card: Card) -> str:
    reference = (
        "Distances are to held-out images; a nearest neighbour near 1 is as far from the training images as held-out "
        "images are, near 0 a copy of them."
        if card.evaluator.startswith("digits")
        else "Distances are to the teacher's own images, since its training data is not at hand."
    )
    balanced = "the same number of each class, " if card.num_classes else ""
    rows = [*card.figures.values(), *card.teacher_figures.values()]
    apart = (
        " Agreement is how far images are from the teacher's reference row, image by image from the same seeds; 0 is "
        "the same images."
        if any(f.agreement is not None for f in rows)
        else ""
    )
    score = (
        " The CLIP score is 100 max(cos, 0) of image and prompt." if any(f.clip_score is not None for f in rows) else ""
    )
    return (
        f"The first column names the sampling steps; every row is {card.samples} images, {balanced}judged by "
        f"`{card.evaluator}`. {reference} Diversity is relative to those images too.{apart}{score}"
    )
