"""What a spec would cost, before anything is stored."""

import math

from service.families import LATENT_FACTORS
from service.methods.base import MethodSettings
from service.spec import JobSpec
from service.tables import Teacher

BYTES = 4
"""float32"""


def estimated_memory_bytes(spec: JobSpec, teacher: Teacher) -> int:
    """Peak bytes of one worker, over the stages: weights, EMAs, gradients, Adam's two moments, and activations.

    P parameters in each network of the method: 4 P per network held, and 12 P more per network trained. A UNet's
    activations per image are about pixels × width × depth, and width × depth grows with the root of P: 16 H W √P
    bytes, for the part of the batch that is run at once, per trained network. H and W are of what the network sees: of
    latents, for a pipeline, whose encoders and VAE come on top. To choose a machine by; not a bound.
    """
    height, width = (side // LATENT_FACTORS.get(teacher.family, 1) for side in teacher.image_size[1:])
    peak = 0.0
    for stage in spec.chain():
        method: MethodSettings = stage.method
        batch = method.batch_size // (spec.resources.workers * method.micro_batches)
        weights = BYTES * teacher.parameters * (method.networks + 3 * method.trained_networks)
        activations = 4 * BYTES * height * width * math.sqrt(teacher.parameters) * batch * method.trained_networks
        peak = max(peak, weights + activations)
    return math.ceil(peak)
