"""What a sound implementation reaches on the digits at least, as measured beforehand: floors, not goals.

Distances are ratios of the Fréchet distance to the teacher's at 50 steps, in the same evaluator.
"""

from dataclasses import dataclass, field
from typing import Any

STEPS = (1, 2, 4)
ACCURACY = 0.96
NEAREST = (0.85, 1.15)


@dataclass(frozen=True)
class Bar:
    """The largest ratio by sampling steps; and at one step, the least recall and diversity."""

    ratio: dict[int, float]
    recall: float
    diversity: float = 0.0
    rising: list[tuple[int, int]] = field(default_factory=list)
    """(few, many): with more steps it must be better."""


ONE_STEP = Bar({1: 1.9}, 0.68, 0.78)
BARS = {
    "progressive": Bar({1: 1.6, 2: 1.5, 4: 1.4}, 0.74, 0.80),
    "consistency": Bar({1: 1.9, 2: 1.6, 4: 1.4}, 0.73, 0.80, [(1, 4)]),
    "dmd2": Bar({1: 1.8, 2: 1.6, 4: 1.5}, 0.72, 0.80),
    "reflow": Bar({1: 1.9, 2: 1.5, 4: 1.4}, 0.72, 0.78),
    "sid": ONE_STEP,
    "diff_instruct": ONE_STEP,
    "dmd": ONE_STEP,
    "lcm": Bar({1: 1.2, 2: 1.15, 4: 1.25}, 0.60, 0.77),
}


def verdict(kind: str, students: list[dict[str, Any]], four: dict[str, Any]) -> list[str]:
    """What misses its bar, in words; nothing is good.

    Methods without a bar of their own must beat the teacher's four DDIM steps, whose figures are `four`, in distance
    and in recall, at every number of steps that they are made for and at the guidance that they have learnt.
    """
    missed = []
    bar = BARS.get(kind)
    ratios: dict[int, float] = {}
    for steps, own in made_for(students).items():
        ratios[steps] = own["frechet"] / reference(students)
        if bar is None:
            if own["frechet"] >= four["frechet"]:
                missed.append(f"FD at {steps} not below the teacher's at 4")
            if own["recall"] <= four["recall"]:
                missed.append(f"recall at {steps} {own['recall']:.2f} ≤ {four['recall']:.2f}")
        else:
            if ratios[steps] > bar.ratio.get(steps, float("inf")):
                missed.append(f"FD at {steps} {ratios[steps]:.2f} > {bar.ratio[steps]}")
            for name in ("recall", "diversity"):
                if steps == 1 and own[name] < getattr(bar, name):
                    missed.append(f"{name} at 1 {own[name]:.2f} < {getattr(bar, name)}")
        if own["accuracy"] < ACCURACY:
            missed.append(f"accuracy at {steps} {own['accuracy']:.3f} < {ACCURACY}")
        if not NEAREST[0] <= own["nearest_neighbour_ratio"] <= NEAREST[1]:
            missed.append(f"nearest-neighbour ratio at {steps} {own['nearest_neighbour_ratio']:.2f}")
    if bar is not None:
        missed += [f"{many} steps no better than {few}" for few, many in bar.rising if ratios[many] >= ratios[few]]
    return missed


def made_for(students: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Figures by the numbers of steps that the students are made for."""
    steps = sorted({n for student in students for n in student["steps"]})
    return {n: found for n in steps if (found := figures(students, n)) is not None}


def figures(students: list[dict[str, Any]], steps: int) -> dict[str, Any] | None:
    """Of the student that is made for so many steps first of all, else of one that also serves them."""
    serving = [s for s in students if steps in s["steps"]]
    found: dict[str, Any] | None = None
    if serving:
        found = min(serving, key=lambda s: s["steps"].index(steps))["figures"][str(steps)]
    return found


def reference(students: list[dict[str, Any]]) -> float:
    """The teacher's distance at 50 steps, at the guidance that the students have learnt."""
    distance: float = students[0]["teacher_figures"]["50"]["frechet"]
    return distance
