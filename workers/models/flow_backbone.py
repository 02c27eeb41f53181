"""Backbones that give the velocity of a straight line from the image to the noise."""

from torch import Tensor

from workers.diffusion.paths import expand
from workers.models.transformer_backbone import TransformerBackbone


class FlowBackbone(TransformerBackbone):
    """`call` gives eps - x0, which is dx/dsigma; with d sigma/dt it is the "flow" dx/dt of a path that is shifted too.

    `of` passes the path of `stock.rectified_flow` and the prediction "flow".
    """

    def raw(self, x: Tensor, t: Tensor, labels: Tensor | None, s: Tensor | None = None) -> Tensor:
        return expand(self.path.dsigma(t), x) * super().raw(x, t, labels, s)
