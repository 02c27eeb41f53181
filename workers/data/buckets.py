"""Aspect buckets: a few sizes of about the teacher's area, so that little is cropped off images that are not square."""

import math
from collections.abc import Sequence

from service.errors import TeacherInvalid
from workers.artifact import Model

Size = tuple[int, int]
"""Height and width in pixels."""

PARTS = 16
"""The teacher's side has so many steps from one size to the next, where its network allows as many."""
LONGEST = 2
"""Times the short side."""


def sizes_for(model: Model) -> list[Size]:
    """Of a teacher, its own first. TeacherInvalid where its network takes no other size."""
    _, height, width = model.image_size
    multiple = model.denoiser.multiple()
    if multiple is None:
        raise TeacherInvalid(
            f"this teacher makes images of {width} by {height} pixels alone: set aspect_buckets to false"
        )
    return sizes((height, width), multiple * height // model.denoiser.shape[1])


def sizes(own: Size, multiple: int) -> list[Size]:
    """`own`, and wider and taller sizes of no larger area, so that no batch takes more memory.

    For 1024 by 1024 pixels they are some of SDXL's (arXiv:2307.01952, appendix I).

    Args:
        multiple: what every side is a multiple of, in pixels.
    """
    area, found = math.prod(own), [own]
    side = math.isqrt(area)
    step = multiple * max(1, round(side / PARTS / multiple))
    long = step * -(-side // step)
    while long <= LONGEST * (short := area // long // step * step):
        found += [(short, long), (long, short)]
        long += step
    return list(dict.fromkeys(found))


def nearest(image: Size, sizes: Sequence[Size]) -> Size:
    """The one of nearest proportions; the first of several."""
    return min(sizes, key=lambda size: abs(math.log(image[0] * size[1] / (image[1] * size[0]))))
