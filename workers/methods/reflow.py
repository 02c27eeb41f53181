"""Reflow, from rectified flow, Liu et al., arXiv:2209.03003."""

from service.methods.reflow import ReflowSettings
from workers.templates.straight import Straight


class Reflow(Straight[ReflowSettings]):
    """Algorithm 1 with the teacher's own pairs: the template's loss and nothing else.

    The teacher's trajectories never cross, so the lines between their ends do so less than those between noises and
    images of no relation, and the student's trajectories are nearly straight: few steps follow them. Deviations: places
    on the line are by default drawn more often near its ends, as in arXiv:2405.20320; and the lines are straightened
    once, which that paper finds to be enough.
    """
