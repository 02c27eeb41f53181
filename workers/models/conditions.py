"""Prompts as a network takes them, encoded once: what the labels of a text-to-image network stand for."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Conditions(nn.Module):
    """Label i is row i of every tensor, and the last row is the empty prompt, the null label.

    So a prompt is to every method what a class is: a number. Copies share the rows, which are not part of the state.

    Args:
        rows: name -> [prompts + 1, ...], by the names that the family calls its network with.
    """

    def __init__(self, rows: Mapping[str, Tensor]) -> None:
        super().__init__()
        lengths = {name: len(row) for name, row in rows.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"every condition needs as many rows as the others, not {lengths}")
        self.names, self.prompts = tuple(rows), next(iter(lengths.values())) - 1
        for name, row in rows.items():
            self.register_buffer(name, row, persistent=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Conditions":
        return self

    def forward(self, labels: Tensor) -> dict[str, Tensor]:
        """The rows [B, ...] of labels [B]."""
        return {name: torch.index_select(self.get_buffer(name), 0, labels) for name in self.names}
