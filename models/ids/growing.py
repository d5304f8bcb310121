"""The map of a growing table."""

import torch
from torch import Tensor

from coldrank.models.features import Table
from coldrank.models.ids.admission import admission_of
from coldrank.models.ids.mixing import Share, stride
from coldrank.models.ids.pairs import Pairs


class GrowingMap(Pairs):
    """id int64 [N] -> row int64 [N]: 1..R-1 for the ids that were added, each its own, 0 for every other.

    A row once given stays. The n-th id gets row 1 + n * stride mod (R - 1), so that a table that is not full is used
    evenly by those who hold a block of its rows each.

    share: the part of the ids that is held here, and that a lookup knows; None: all. size: ids added, on all ranks.
    missed: values that found the table full. waiting: how often ids without a row were seen; None where the first time
    is enough.
    """

    size: Tensor
    missed: Tensor

    def __init__(self, table: Table, share: Share | None = None) -> None:
        super().__init__()
        self.places, self.share = table.rows - 1, share
        self.stride, self.min_count = stride(self.places), table.min_count
        self.register_buffer("size", torch.zeros((), dtype=torch.int64))
        self.register_buffer("missed", torch.zeros((), dtype=torch.int64))
        self.waiting = admission_of(table, self.blocks, share)

    def is_full(self) -> bool:
        """Whether no further id gets a row."""
        return int(self.size) == self.places

    def ripe(self, ids: Tensor, events: Tensor) -> Tensor:
        """Counts events int64 [N] of ids [N], ascending, distinct and without a row; bool [N]: which are to get one."""
        if self.waiting is None:
            return torch.ones(len(ids), dtype=torch.bool)
        ripe = self.waiting.add(ids, events) >= self.min_count
        self.waiting.forget(ids[ripe])
        return ripe

    def add(self, ids: Tensor) -> Tensor:
        """Gives rows to ids [N], ascending, distinct and without a row, whoever holds them; int64 [N], 0 from where the
        table is full."""
        size = int(self.size)
        count = min(len(ids), self.places - size)
        rows = torch.zeros_like(ids)
        rows[:count] = self.rows_given(size, size + count)
        new = torch.stack([ids, rows])[:, :count]
        if self.share is not None:
            new = new[:, self.share.owners(new[0]) == self.share.rank]
        self.insert(new)
        self.size += count
        if self.waiting is not None and self.is_full():
            self.waiting.clear()
        return rows

    def first(self, size: int) -> Tensor:
        """`known` as it was after the first `size` ids; the tail has to be empty."""
        if size == int(self.size):
            return self.known
        numbers = (self.known[1] - 1) * pow(self.stride, -1, self.places) % self.places
        return self.known[:, (numbers < size) | (self.known[1] == 0)]

    def rows_given(self, start: int, end: int) -> Tensor:
        """Rows of the ids `start`..`end - 1` in the order of their addition."""
        return 1 + torch.arange(start, end) * self.stride % self.places
