"""A second time for a UNet2DModel, which knows one: where the step leads to. Only training needs it to be an input.

A student is sampled in a few steps at known times, so after training the second time is a function of the first, and
is folded into the weights of the first one's embedding: what is exported is a stock network.
"""

import copy

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn


class LabelAndTarget(nn.Module):
    """In the place of a network's class embedding: the class's, if it knows classes, plus the target time's."""

    def __init__(self, unet: UNet2DModel) -> None:
        super().__init__()
        channels = unet.time_embedding.linear_1.in_features
        width = unet.time_embedding.linear_2.out_features
        self.classes = unet.class_embedding
        self.waves = unet.time_proj
        self.target = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))
        last = self.target[2]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # at first the target time makes no difference
        nn.init.zeros_(last.bias)
        self.to(next(unet.parameters()).device)

    @staticmethod
    def pack(labels: Tensor | None, s: Tensor) -> Tensor:
        """[B, 2]: what `forward` takes apart, since the network hands on one tensor. `s` in the network's own time."""
        return torch.stack([torch.zeros_like(s) if labels is None else labels.to(s), s], dim=1)

    def forward(self, packed: Tensor) -> Tensor:
        labels, s = packed.unbind(1)
        embedding = self.embed(s)
        return embedding if self.classes is None else embedding + self.classes(labels.long())

    def embed(self, s: Tensor) -> Tensor:
        """The target time's part [B, width]."""
        first = self.target[0]
        assert isinstance(first, nn.Linear)
        return self.target(self.waves(s).to(first.weight.dtype))


@torch.no_grad()
def bake(unet: UNet2DModel, t: Tensor, s: Tensor) -> UNet2DModel:
    """Fold the target times `s` [N] into the embedding of the times `t` [N]; changes `unet` and returns it.

    The embedding ends in a linear layer W h(t) + b. The smallest change (dW, db) with dW h(t_i) + db = e(s_i) for all i
    is exact as long as there are no more times than channels, and the times differ. Where all s_i are one, b alone is
    changed, and it is exact at every time.
    """
    second = unet.class_embedding
    assert isinstance(second, LabelAndTarget)
    embedding = unet.time_embedding
    device = embedding.linear_1.weight.device
    unet.class_embedding = second.classes
    wanted = copy.deepcopy(second).double().embed(s.to(device))
    if bool((s == s[0]).all()):
        _add(embedding.linear_2, "bias", wanted[0])
        return unet
    times = unet.time_proj(t.to(device)).double()
    hidden = embedding.act(times @ embedding.linear_1.weight.double().T + embedding.linear_1.bias.double())
    hidden = torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=1)
    change = torch.linalg.pinv(hidden) @ wanted
    _add(embedding.linear_2, "weight", change[:-1].T)
    _add(embedding.linear_2, "bias", change[-1])
    return unet


def _add(layer: nn.Linear, name: str, change: Tensor) -> None:
    """To a parameter; or to what is shared, in whose place comes a parameter then."""
    old = getattr(layer, name)
    setattr(layer, name, nn.Parameter(old + change.to(old)))
