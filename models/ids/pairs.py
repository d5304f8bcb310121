"""Ids with a number each, in sorted order: what growing tables know, and what is counted of ids that wait for a row."""

from typing import Any

import torch
from torch import Tensor, nn

from coldrank.models.ids.mixing import BLOCKS

LARGEST = (1 << 63) - 1


class Pairs(nn.Module):
    """Distinct int64 ids, each with a number above 0.

    known: int64 [2, M + 1], ids ascending and their numbers; behind them the largest id with 0, so that a search always
    ends at a place. tail: int64 [2, M], the ids added last, a sixteenth at most, so that an addition costs little;
    `state_dict` merges them into `known` first, and `load_state_dict` takes `known` of any length and order. held:
    buffers of which every rank holds its share where ids are shared out.

    One thread may add ids while others look ids up: what they read is never changed, but replaced.
    """

    known: Tensor
    tail: Tensor

    def __init__(self, blocks: int = BLOCKS) -> None:
        """blocks: in which ids are shared out."""
        super().__init__()
        self.held, self.blocks = ("known",), blocks
        self.register_buffer("known", indexed(torch.empty(2, 0, dtype=torch.int64)))
        self.register_buffer("tail", torch.empty(2, 0, dtype=torch.int64), persistent=False)
        self.register_state_dict_pre_hook(_merge_tail)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 [N] -> their numbers int64 [N], 0 for ids that are not here."""
        tail = self.tail  # before `known`: an id that leaves it is there by then
        numbers = _find(self.known, ids)
        if tail.shape[1] > 0:
            missing = (numbers == 0).nonzero().squeeze(1)
            numbers[missing] = _find(tail, ids[missing])
        return numbers

    def insert(self, pairs: Tensor) -> None:
        """Takes ids [2, N], ascending, distinct and not here, and their numbers."""
        self.tail = _merged(self.tail, pairs)
        if self.tail.shape[1] > max(4096, self.known.shape[1] // 16):
            self.merge_tail()

    def merge_tail(self) -> None:
        """Moves the tail into `known`."""
        if self.tail.shape[1]:
            self.known = _merged(self.known, self.tail)
            self.tail = self.tail[:, :0]

    def take(self, pairs: Tensor) -> None:
        """Holds these ids and numbers, int64 [2, M], in any order; those with 0 are none."""
        pairs = pairs[:, pairs[1] > 0]
        self.known, self.tail = indexed(pairs[:, pairs[0].argsort()]), self.tail[:, :0]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if (known := state_dict.get(f"{prefix}known")) is not None:
            self.take(known)
            state_dict = state_dict | {f"{prefix}known": self.known}
        super()._load_from_state_dict(state_dict, prefix, *args)


def indexed(pairs: Tensor) -> Tensor:
    """[2, M], ids ascending, and behind them the largest id with 0."""
    return torch.cat([pairs, torch.tensor([[LARGEST], [0]])], 1)


def place(index: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Of ids [N] in an index [2, M], M > 0: where each would stand, int64 [N], and whether it does, bool [N]."""
    at = torch.searchsorted(index[0], ids).clamp(max=index.shape[1] - 1)
    return at, index[0][at] == ids


def _find(index: Tensor, ids: Tensor) -> Tensor:
    at, there = place(index, ids)
    return torch.where(there, index[1][at], torch.zeros_like(at))


def _merged(index: Tensor, new: Tensor) -> Tensor:
    """Two indices [2, M], [2, N] of different ids as one [2, M + N]."""
    at = torch.searchsorted(index[0].contiguous(), new[0].contiguous()) + torch.arange(new.shape[1])
    old = torch.ones(index.shape[1] + new.shape[1], dtype=torch.bool)
    old[at] = False
    whole = torch.empty(2, len(old), dtype=torch.int64)
    whole[:, at] = new
    whole[:, old] = index
    return whole


def _merge_tail(module: nn.Module, *_: object) -> None:
    assert isinstance(module, Pairs)
    module.merge_tail()
