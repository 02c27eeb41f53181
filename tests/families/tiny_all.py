"""All families' tiny pipelines."""

import tiny_stable_diffusion

TINY = {**tiny_stable_diffusion.TINY}
