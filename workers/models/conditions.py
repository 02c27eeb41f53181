"""Prompts as a network takes them, encoded once: what the labels of a text-to-image network stand for."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

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


class Rows(Protocol):
    """A table of tensors that lies elsewhere."""

    def __len__(self) -> int: ...

    def rows(self, places: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Of places int64 [B], on the CPU: name -> [B, ...]."""


class StoredConditions(Conditions):
    """Conditions of any number of prompts: a row is fetched when it is asked for.

    A step asks its networks for the same prompts several times, so the last rows are kept.

    Args:
        table: row i of it is label i's.
        null: name -> [1, ...], the row after them.
    """

    def __init__(self, table: Rows, null: Mapping[str, Tensor]) -> None:
        super().__init__(null)
        self.prompts = len(table)
        self._table = table
        self._kept: tuple[list[int], dict[str, Tensor]] = ([], dict(null))

    def forward(self, labels: Tensor) -> dict[str, Tensor]:
        asked, inverse = labels.cpu().unique(return_inverse=True)  # sorted, so that the null label comes last
        prompts = asked[asked < self.prompts]
        null = {name: self.get_buffer(name).to(labels.device) for name in self.names}
        if prompts.tolist() != self._kept[0] or next(iter(self._kept[1].values())).device != labels.device:
            found = self._table.rows(prompts, self.names) if len(prompts) else {}
            rows = {n: torch.cat([found[n].to(labels.device), null[n]]) if found else null[n] for n in self.names}
            self._kept = (prompts.tolist(), rows)
        inverse = inverse.to(labels.device)
        return {name: torch.index_select(row, 0, inverse) for name, row in self._kept[1].items()}
