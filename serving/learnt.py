"""The ids of all tables that learn theirs, in one search.

N ids, M places, T tables.
"""

import torch
from torch import Tensor, nn

from coldrank.models.ids.evicting import EvictingMap
from coldrank.models.ids.growing import GrowingMap
from coldrank.models.ids.maps import VocabularyMap

_LARGEST = (1 << 63) - 1
# A row of table number t is written as t << _ROW | row.
_ROW = 40


class Learnt(nn.Module):
    """id ^ salt of its table -> number of the table and row, -1 for an id that no table knows. Scriptable.

    A key of one table may be that of an unknown id of another, whose number then tells: `own_rows`. keys: int64 [M],
    ascending; places that wait for more ids have the largest key of their table's range, and answer -1.
    """

    keys: Tensor
    answers: Tensor

    def __init__(self, maps: list[nn.Module]) -> None:
        super().__init__()
        learnt = [pairs(m) for m in maps]
        self.salts = _salts([ids for ids, _, _ in learnt])
        keys, answers = [], []
        for number, (ids, rows, places) in enumerate(learnt):
            ordered = (ids ^ self.salts[number]).sort()
            top = (_LARGEST >> 8) ^ self.salts[number]
            top = max(top, int(ordered.values[-1])) if len(ids) else top
            keys.append(torch.cat([ordered.values, torch.full((places - len(ids),), top)]))
            answers.append(torch.full((places,), -1))
            answers[-1][: len(ids)] = (number << _ROW) | rows[ordered.indices]
        order = torch.cat(keys).argsort(stable=True)
        self.register_buffer("keys", torch.cat(keys)[order])
        self.register_buffer("answers", torch.cat(answers)[order])

    def forward(self, keys: Tensor) -> Tensor:
        """int64 [N] -> int64 [N]."""
        position = torch.searchsorted(self.keys, keys).clamp(max=self.keys.shape[0] - 1)
        return torch.where(self.keys[position] == keys, self.answers[position], -1)


def first_answer(number: int) -> int:
    """What is written for row 0 of a table."""
    return number << _ROW


def own_rows(answers: Tensor, first: Tensor) -> Tensor:
    """Answers -> rows of the table whose `first_answer` it is, 0 where they are another's or -1. Scriptable."""
    row = answers - first
    return torch.where((row >> 40) == 0, row, 0)


def pairs(ids_of: nn.Module) -> tuple[Tensor, Tensor, int]:
    """The ids that a map knows, their rows, and how many it has room for."""
    if isinstance(ids_of, VocabularyMap):
        known = ids_of.ids[ids_of.ids < _LARGEST]
        return known, torch.arange(1, len(known) + 1), len(ids_of.ids)
    if isinstance(ids_of, GrowingMap):
        ids_of.merge_tail()
        return ids_of.known[0, :-1], ids_of.known[1, :-1], ids_of.places
    assert isinstance(ids_of, EvictingMap)
    return *ids_of.held_rows(), ids_of.rows


def _salts(ids: list[Tensor]) -> list[int]:
    """A number for each table, so that no two known ids of different tables have one key: ids below 2 ** 55 stay in
    ranges of their own, in their order."""
    for attempt in range(100):
        salts = [_signed((number << 55) ^ (attempt * 0x9E3779B97F4A7C15)) for number in range(len(ids))]
        keys = torch.cat([i ^ s for i, s in zip(ids, salts, strict=True)])
        if len(keys.unique()) == len(keys):
            return salts
    raise ValueError("no salts found that keep the tables' ids apart")


def _signed(number: int) -> int:
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number
