"""Teacher and student asked for the same things with the same seeds: how far their images are apart, image by image."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from service.observations import Figures
from workers.evaluate import figures
from workers.evaluate.evaluator import BATCH, Asked, Eye, Generate, Keep, balanced_labels, draw, made, small_pixels
from workers.evaluate.features import Clip, Features

PAIRS = 100
"""Images at least; more, where there are more prompts or classes, so that each is asked for equally often."""

SEED = 3
"""Of none of the evaluator's sets."""


@dataclass(frozen=True)
class Paired:
    """Figures that need an image of the teacher, or the prompt, for each of the student's.

    Args:
        identity: names what is asked for and how it is compared.
        texts: the prompt of each image; empty where there are none.
        teacher: what was seen of the teacher's images, [N, D].
    """

    identity: str
    asked: Asked
    texts: tuple[str, ...]
    features: Features | None
    teacher: Tensor
    batch: int

    @classmethod
    def of(
        cls,
        teacher: Generate,
        steps: int,
        asked: Asked,
        texts: tuple[str, ...],
        features: Features | None = None,
        batch: int = BATCH,
        keep: Keep = made,
    ) -> Self:
        """Draw the teacher's images, unless `keep` has kept what was seen of them.

        Args:
            asked, texts: see `questions`.
        """
        told = json.dumps([texts, asked.tolist() if isinstance(asked, Tensor) else None])
        name = features.identity if features else "pixels"
        identity = f"pairs-v1-{name}-{steps}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
        kept = keep(identity, lambda: {"teacher": _seen(teacher, asked, steps, features, batch)})
        return cls(identity, asked, texts, features, kept["teacher"], batch)

    def complete(self, found: Figures, generate: Generate, steps: int) -> Figures:
        """With `agreement`, and `clip_score` where prompts are known and the features are CLIP's."""
        seen = _seen(generate, self.asked, steps, self.features, self.batch)
        difference = figures.angle if self.features else figures.root_mean_square
        more: dict[str, float] = {"agreement": difference(seen, self.teacher)}
        if self.texts and isinstance(self.features, Clip):
            more["clip_score"] = figures.clip_score(seen, self.features.text(self.texts))
        return found.model_copy(update=more)


def questions(
    held_out: Sequence[str] | None, prompts: Sequence[str], classes: int | None
) -> tuple[Asked, tuple[str, ...]]:
    """What teacher and student are asked for, `PAIRS` times or more, and each image's prompt, if there are prompts.

    Args:
        held_out: the prompts of the evaluation; where it has none, labels are asked for.
        prompts: what labels stand for, if they are no classes.
        classes: how many labels; None for a model without any.
    """
    if held_out:
        texts = tuple(held_out[i] for i in _several(len(held_out)).tolist())
        return texts, texts
    if classes is None:
        return None, ()
    labels = _several(classes)
    return labels, tuple(prompts[i] for i in labels.tolist()) if prompts else ()


def _several(count: int) -> Tensor:
    labels = balanced_labels(PAIRS, count)
    assert labels is not None
    return labels


def _seen(generate: Generate, asked: Asked, steps: int, features: Features | None, batch: int) -> Tensor:
    eye = Eye(features.identity if features else "pixels", features or small_pixels)
    return eye.look(draw(generate, asked, steps, PAIRS, SEED, batch)).features
