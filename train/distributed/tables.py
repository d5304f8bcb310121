"""What a rank holds of a sharded model's tables, and their first weights."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed.tensor import DTensor

# Rows of a table are initialised in blocks of this size, each from a seed of its own: any shard of any plan starts
# equal.
_INIT_BLOCK = 65_536
_UNPOOLED = re.compile(r"\.ecs\.\d+\.embeddings\.")
T = TypeVar("T")


def table_of(name: str) -> str:
    """Table of a parameter, by the parameter's name; '' for a dense one."""
    return stored_name(name).partition(".embedding_bags.")[2].rpartition(".")[0]


def stored_name(name: str) -> str:
    """A parameter's name in checkpoints, where a table's is that of a pooled one, however it is read."""
    return _UNPOOLED.sub(".ebc.embedding_bags.", name)


def stored_names(state: Mapping[str, T]) -> dict[str, T]:
    """State by parameters' names in checkpoints."""
    return {stored_name(name): value for name, value in state.items()}


@torch.no_grad()
def init_tables(model: nn.Module, scales: dict[str, float], seed: int) -> None:
    """Fills every local shard, or copy, with N(0, scale^2), a function of (seed, table, row, column) alone.

    scales: table -> standard deviation.
    """
    for name, value in model.state_dict().items():
        if not (table := table_of(name)):
            continue
        width = whole_shape(value)[1]
        for part, (row, column) in local_parts(value):
            rows, dim = part.shape
            for block in range(row // _INIT_BLOCK, -(-(row + rows) // _INIT_BLOCK)):
                full = drawn(seed, table, block, _INIT_BLOCK, width) * scales[table]
                low, high = max(row, block * _INIT_BLOCK), min(row + rows, (block + 1) * _INIT_BLOCK)
                piece = full[low - block * _INIT_BLOCK : high - block * _INIT_BLOCK, column : column + dim]
                part[low - row : high - row].copy_(piece)


def whole_shape(value: torch.Tensor | ShardedTensor) -> list[int]:
    """Shape of a tensor, over all ranks if it is sharded."""
    return list(value.metadata().size if isinstance(value, ShardedTensor) else value.shape)


def local_parts(value: torch.Tensor | ShardedTensor) -> list[tuple[torch.Tensor, list[int]]]:
    """What this rank holds of a sharded or copied tensor, and where each part begins."""
    if isinstance(value, ShardedTensor):
        return [(s.tensor, s.metadata.shard_offsets) for s in value.local_shards()]
    if isinstance(value, DTensor):  # of replicas
        held: Any = value.to_local()
        # Where there is no shard there is an offset still.
        return list(zip(held.local_shards(), map(list, held.local_offsets()), strict=False))
    return [(value, [0] * value.dim())]


def drawn(seed: int, what: str, number: int, rows: int, width: int) -> torch.Tensor:
    """N(0, 1), float32 [rows, width], a function of the arguments alone."""
    mixed = seed
    for byte in (*what.encode(), *number.to_bytes(8, "little")):
        mixed = (mixed * 1_000_003 + byte) % (1 << 61)
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(mixed))
