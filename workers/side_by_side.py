"""The picture of a student: its images beside its teacher's, from the same seeds."""

from collections.abc import Sequence

import torch

from workers.artifact import Model
from workers.evaluate.evaluator import Generate
from workers.grid import grid_png

COLUMNS = 10
PROMPTS = 6
SEEDS = 2
"""Images of each prompt."""


def side_by_side(teacher: Generate, teacher_steps: int, student: Model, prompts: Sequence[str] = ()) -> bytes:
    """A PNG grid of the teacher at its reference steps and the student at each of its own.

    With prompts, a row for each of the first; otherwise a row for each sampler, whose column i has seed i, and class i
    if there are classes.
    """
    samplers = [("teacher", teacher, teacher_steps)]
    samplers += [("student", student.generate, n) for n in sorted(student.steps, reverse=True)]
    names = [f"{who}, {n} step{'' if n == 1 else 's'}" for who, _, n in samplers]
    if prompts:
        shown, seeds = list(prompts[:PROMPTS]), list(range(SEEDS))
        rows = [torch.cat([draw([one] * SEEDS, seeds, n).cpu() for _, draw, n in samplers]) for one in shown]
        return grid_png(rows, labels=shown, heads=names)
    columns = min(student.num_classes or COLUMNS, COLUMNS)
    labels = None if student.num_classes is None else torch.arange(columns)
    return grid_png([draw(labels, list(range(columns)), n) for _, draw, n in samplers], labels=names)
