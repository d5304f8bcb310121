"""Whether what a run has learnt is finite: a checkpoint of anything else is worth nothing."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

from coldrank.train.distributed.ranks import objects_of_all_ranks
from coldrank.train.distributed.tables import local_parts

_BLOCK = 1 << 24


def not_finite(state: dict[str, Any]) -> str | None:
    """Name of the first tensor of a state, nested as it may be, that holds NaN or an infinite number on any rank; None
    if there is none. Called by all ranks."""
    tensors = [(name, x) for name, x in _tensors(state) if x.is_floating_point() and x.numel()]
    # A sum is NaN or infinite if an element is, costs no memory, and there is one wait for the device. Large finite
    # elements may sum to infinity: those are looked at one by one.
    sums = torch.stack([x.sum(dtype=torch.float32) for _, x in tensors]).tolist() if tensors else []
    mine = next(
        (n for (n, x), total in zip(tensors, sums, strict=True) if not (math.isfinite(total) or _is_finite(x))), None
    )
    return next((name for name in objects_of_all_ranks(mine) if name), None)


def _is_finite(x: Tensor) -> bool:
    return all(bool(torch.isfinite(block).all()) for block in x.reshape(-1).split(_BLOCK))


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor | ShardedTensor):
        yield from ((name, part.detach()) for part, _ in local_parts(value))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _tensors(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _tensors(inner, f"{name}.{number}")
