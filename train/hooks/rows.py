"""Rows of a sharded table, read and written where they lie. Every call is made by all ranks.

R rows of the table, D its width, N rows that are written.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

from coldrank.train.distributed.tables import table_of


class TableRows:
    """The parts of a table that this rank holds: its shards, or a copy where every rank has one."""

    def __init__(self, model: nn.Module, table: str) -> None:
        self.parts: list[tuple[Tensor, int, int]] = []
        self.sharded = False
        for name, value in model.state_dict().items():
            if table_of(name) != table:
                continue
            self.sharded = isinstance(value, ShardedTensor)
            if isinstance(value, ShardedTensor):
                offsets = ((s.tensor, s.metadata.shard_offsets) for s in value.local_shards())
                self.parts, self.dim = [(tensor, o[0], o[1]) for tensor, o in offsets], value.metadata().size[1]
            else:
                self.parts, self.dim = [(value, 0, 0)], value.shape[1]

    @torch.no_grad()
    def mean(self, rows: Tensor) -> Tensor:
        """Mean of some rows, the same on every rank: bool [R], not all False -> float32 [D]."""
        total = torch.zeros(self.dim, device=rows.device)
        for part, row, column in self.parts:
            inside = rows[row : row + len(part)]
            total[column : column + part.shape[1]] += part[inside].sum(0)
        if self.sharded and dist.get_world_size() > 1:
            dist.all_reduce(total)
        return total / rows.sum()

    @torch.no_grad()
    def write(self, rows: Tensor, value: Tensor) -> None:
        """Gives rows int64 [N] one value [D]."""
        for part, row, column in self.parts:
            inside = rows[(rows >= row) & (rows < row + len(part))] - row
            part[inside] = value[column : column + part.shape[1]]
