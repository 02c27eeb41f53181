"""The network of the Fréchet Inception distance: Inception v3 (arXiv:1512.00567) as TensorFlow had it in 2015.

It differs from today's in its pools: averages leave the padding out, and the last block takes the maximum. Weights go
by the names of the published PyTorch conversion, whose state dict, saved as safetensors, opens here.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Size = int | tuple[int, int]


class Unit(nn.Module):
    """Convolution, batch normalisation, ReLU; padded to keep the size where `stride` is 1, unless `padding` says."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Size = 1, stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        same = (sides[0] // 2, sides[1] // 2) if stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, same if padding is None else padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class Average(nn.Module):
    """3 by 3, of what is inside the image."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class Layer(NamedTuple):
    """A named `Unit`."""

    name: str
    outputs: int
    kernel: Size = 1
    stride: int = 1


class Block(nn.Module):
    """Branches side by side, and one more that starts with `pool`; `pooled` is the width of that one's unit, if any.

    A branch is a chain of layers; a list of them in it makes it fork.
    """

    def __init__(
        self, inputs: int, pool: nn.Module, pooled: int | None, *branches: Sequence[Layer | list[Layer]]
    ) -> None:
        super().__init__()
        self.branches: list[list[list[str]]] = []
        for branch in branches:
            width, chain = inputs, []
            for step in branch:
                forks = step if isinstance(step, list) else [step]
                for name, outputs, kernel, stride in forks:
                    self.add_module(name, Unit(width, outputs, kernel, stride))
                chain.append([fork.name for fork in forks])
                width = sum(fork.outputs for fork in forks)
            self.branches.append(chain)
        self.pool = pool
        self.branch_pool = nn.Identity() if pooled is None else Unit(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for branch in self.branches:
            y = x
            for names in branch:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            found.append(y)
        return torch.cat([*found, self.branch_pool(self.pool(x))], 1)


def block_a(inputs: int, pooled: int) -> Block:
    five = [Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, 5)]
    three = [Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, 3), Layer("branch3x3dbl_3", 96, 3)]
    return Block(inputs, Average(), pooled, [Layer("branch1x1", 64)], five, three)


def block_b(inputs: int) -> Block:
    three = [Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, 3), Layer("branch3x3dbl_3", 96, 3, 2)]
    return Block(inputs, nn.MaxPool2d(3, 2), None, [Layer("branch3x3", 384, 3, 2)], three)


def block_c(inputs: int, width: int) -> Block:
    once = [Layer("branch7x7_1", width, 1), Layer("branch7x7_2", width, (1, 7)), Layer("branch7x7_3", 192, (7, 1))]
    turns: list[Size] = [1, (7, 1), (1, 7), (7, 1)]
    twice = [Layer(f"branch7x7dbl_{i}", width, turn) for i, turn in enumerate(turns, start=1)]
    return Block(
        inputs, Average(), 192, [Layer("branch1x1", 192)], once, [*twice, Layer("branch7x7dbl_5", 192, (1, 7))]
    )


def block_d(inputs: int) -> Block:
    three = [Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, 3, 2)]
    seven = [Layer("branch7x7x3_1", 192), Layer("branch7x7x3_2", 192, (1, 7)), Layer("branch7x7x3_3", 192, (7, 1))]
    return Block(inputs, nn.MaxPool2d(3, 2), None, three, [*seven, Layer("branch7x7x3_4", 192, 3, 2)])


def block_e(inputs: int, pool: nn.Module) -> Block:
    once = [Layer("branch3x3_2a", 384, (1, 3)), Layer("branch3x3_2b", 384, (3, 1))]
    twice = [Layer("branch3x3dbl_3a", 384, (1, 3)), Layer("branch3x3dbl_3b", 384, (3, 1))]
    double = [Layer("branch3x3dbl_1", 448), Layer("branch3x3dbl_2", 384, 3)]
    return Block(inputs, pool, 192, [Layer("branch1x1", 320)], [Layer("branch3x3_1", 384), once], [*double, twice])


def inception() -> nn.Sequential:
    """[B, 3, 299, 299] in [-1, 1] to [B, 2048, 8, 8], with random weights."""
    return nn.Sequential(
        OrderedDict(
            Conv2d_1a_3x3=Unit(3, 32, 3, 2),
            Conv2d_2a_3x3=Unit(32, 32, 3, padding=0),
            Conv2d_2b_3x3=Unit(32, 64, 3),
            maxpool1=nn.MaxPool2d(3, 2),
            Conv2d_3b_1x1=Unit(64, 80),
            Conv2d_4a_3x3=Unit(80, 192, 3, padding=0),
            maxpool2=nn.MaxPool2d(3, 2),
            Mixed_5b=block_a(192, 32),
            Mixed_5c=block_a(256, 64),
            Mixed_5d=block_a(288, 64),
            Mixed_6a=block_b(288),
            Mixed_6b=block_c(768, 128),
            Mixed_6c=block_c(768, 160),
            Mixed_6d=block_c(768, 160),
            Mixed_6e=block_c(768, 192),
            Mixed_7a=block_d(768),
            Mixed_7b=block_e(1280, Average()),
            Mixed_7c=block_e(2048, nn.MaxPool2d(3, stride=1, padding=1)),
        )
    )
