"""A UNet2DModel with fewer channels, or fewer blocks at each resolution, than the one it starts from."""

import math
import re

from diffusers import UNet2DModel
from torch import Tensor

from service.errors import TeacherInvalid

UP = re.compile(r"(up_blocks\.\d+\.(?:resnets|attentions)\.)(\d+)(\..*)")


def smaller(unet: UNet2DModel, width: float, depth: float) -> UNet2DModel:
    """A network of the same kind; with equal channels it keeps the weights of every block that is left.

    With fewer channels it keeps the first of them, which is no more than a start: what a layer adds up has changed.

    Args:
        width: of the channels of each resolution, rounded down to what its normalisation and its attention can split.
        depth: of the blocks of each resolution, rounded up.

    Raises:
        TeacherInvalid: the network has not enough channels or blocks to leave any out.
    """
    config = dict(unet.config)
    channels, blocks = tuple(config["block_out_channels"]), config["layers_per_block"]
    unit = math.lcm(config["norm_num_groups"], config["attention_head_dim"] or 1)
    fewer = tuple(min(c, max(unit, int(c * width) // unit * unit)) for c in channels)
    left = math.ceil(blocks * depth)
    if width < 1 and fewer == channels:
        raise TeacherInvalid(
            f"student_width {width:g} leaves none of the {list(channels)} channels out, since they go by {unit}: "
            "use 1, or a smaller share"
        )
    if depth < 1 and left == blocks:
        raise TeacherInvalid(
            f"student_depth {depth:g} leaves no block out, since each resolution has {blocks}: use 1"
            + (", or a smaller share" if blocks > 1 else "")
        )
    network = UNet2DModel.from_config(config | {"block_out_channels": fewer, "layers_per_block": left})
    theirs = unet.state_dict()
    kept = {name: _first(theirs[_origin(name, left, blocks)], own) for name, own in network.state_dict().items()}
    network.load_state_dict(kept)
    return network.to(next(unet.parameters()).device)


def _origin(name: str, left: int, blocks: int) -> str:
    """The weight's name in the larger network. A resolution on the way up has one block more, and its last one stays
    the last: it takes in what the way down began with."""
    found = UP.fullmatch(name)
    return f"{found[1]}{blocks}{found[3]}" if found and int(found[2]) == left else name


def _first(theirs: Tensor, own: Tensor) -> Tensor:
    return theirs[tuple(slice(n) for n in own.shape)]
