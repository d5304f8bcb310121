"""Rows of a sharded table, read and written where they lie. Every call is made by all ranks.

R rows of the table, D its width, N rows that are written.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed._shard.sharded_tensor.shard import Shard

from coldrank.train.distributed.ranks import world_size
from coldrank.train.distributed.tables import local_parts, table_of, whole_shape


class TableRows:
    """The parts of a table that this rank holds: its shards, or a copy where every rank has one."""

    def __init__(self, model: nn.Module, table: str) -> None:
        weight = next(value for name, value in model.state_dict().items() if table_of(name) == table)
        self._take(weight)

    def _take(self, weight: Tensor | ShardedTensor) -> None:
        self.sharded = isinstance(weight, ShardedTensor)
        self.parts, self.dim = local_parts(weight), whole_shape(weight)[1]

    @torch.no_grad()
    def mean(self, rows: Tensor) -> Tensor:
        """Mean of some rows, the same on every rank: bool [R], not all False -> float32 [D]."""
        total = torch.zeros(self.dim, device=rows.device)
        for part, (row, column) in self.parts:
            inside = rows[row : row + len(part)]
            total[column : column + part.shape[1]] += part[inside].sum(0)
        if self.sharded and world_size() > 1:
            dist.all_reduce(total)
        return total / rows.sum()

    @torch.no_grad()
    def read(self, rows: Tensor) -> Tensor:
        """Rows int64 [N], the same on every rank -> [N, D], on every rank."""
        values = torch.zeros(len(rows), self.dim, device=rows.device)
        for part, (row, column) in self.parts:
            here = (rows >= row) & (rows < row + len(part))
            values[here, column : column + part.shape[1]] = part[rows[here] - row]
        if self.sharded and world_size() > 1:
            dist.all_reduce(values)
        return values

    @torch.no_grad()
    def write(self, rows: Tensor, value: Tensor) -> None:
        """Gives rows int64 [N], all different, one value [D] or each its own [N, D]."""
        values = value.expand(len(rows), -1)
        for part, (row, column) in self.parts:
            here = (rows >= row) & (rows < row + len(part))
            part[rows[here] - row] = values[here, column : column + part.shape[1]].to(part.dtype)


class RowsBeside(TableRows):
    """Numbers of a table's shape, zeros at first, each where the table's own lies: on one rank, and in a checkpoint as
    the table is, which may be read by any number of ranks."""

    def _take(self, weight: Tensor | ShardedTensor) -> None:
        self.value = _zeros_like(weight)
        super()._take(self.value)


def _zeros_like(weight: Tensor | ShardedTensor) -> Tensor | ShardedTensor:
    if not isinstance(weight, ShardedTensor):
        return torch.zeros_like(weight)
    shards = [Shard(torch.zeros_like(s.tensor), s.metadata) for s in weight.local_shards()]
    return ShardedTensor._init_from_local_shards_and_global_metadata(
        shards, weight.metadata(), process_group=weight._process_group
    )
