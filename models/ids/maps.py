"""How a raw 64-bit id becomes a row of its table. What a map has learnt lies in buffers and travels with the
checkpoint.

N: number of ids, H: hashes per id, R: rows of the table.
"""

import torch
from torch import Tensor, nn

from coldrank.models.features import Table
from coldrank.models.ids.evicting import EvictingMap
from coldrank.models.ids.growing import GrowingMap
from coldrank.models.ids.mixing import Share, mix64
from coldrank.models.ids.pairs import LARGEST

_STEP = -7046029254386353131
# Of how many ids on remembering places saves time, and how many places are remembered at most.
_MANY, _REMEMBERED = 4096, 1 << 22


class HashMap(nn.Module):
    """id int64 [..] -> row int64 [..] in 0..rows-1. Ids that collide share a row. rows: one for all, or of a shape that
    spreads over the ids."""

    def __init__(self, rows: int | Tensor) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, ids: Tensor) -> Tensor:
        return torch.remainder(mix64(ids), self.rows)


class MultiHashMap(nn.Module):
    """id int64 [..] -> rows int64 [.., H] in 0..rows-1, whose sum stands for the id. Each hash mixes the one before."""

    def __init__(self, rows: int, hashes: int) -> None:
        super().__init__()
        self.rows, self.hashes = rows, hashes

    def forward(self, ids: Tensor) -> Tensor:
        hashed = []
        for _ in range(self.hashes):
            ids = mix64(ids)
            hashed.append(torch.remainder(ids, self.rows))
        return torch.stack(hashed, -1)


class VocabularyMap(nn.Module):
    """id int64 [N] -> row int64 [N]: 1.. for the ids of the vocabulary, 0 for every other.

    remembered: int32, places in `ids` where frequent ids were found, at a hash of the id. Each is checked before it is
    used: it may be stale, or of another id, and is no part of the state.
    """

    ids: Tensor
    remembered: Tensor

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        # Padded to the table's size, so that checkpoints of any vocabulary fit: the largest id fills the tail, and a
        # search from the left finds the first of equal ids.
        self.register_buffer("ids", torch.full((rows - 1,), LARGEST))
        size = min(_REMEMBERED, 1 << (2 * rows).bit_length())
        self.register_buffer("remembered", torch.zeros(size, dtype=torch.int32), persistent=False)
        self.many, self.factor, self.largest = _MANY, _STEP, LARGEST  # a script knows no constants of the file

    def set(self, ids: Tensor) -> None:
        """Takes the distinct ids [V], V <= rows - 1."""
        self.ids.fill_(LARGEST)
        self.ids[: len(ids)] = ids.sort().values
        self.remembered.zero_()

    def forward(self, ids: Tensor) -> Tensor:
        places = self._places(ids)
        known = (self.ids[places] == ids) & (ids < self.largest)  # what pads the vocabulary is no id
        return torch.where(known, places + 1, torch.zeros_like(places))

    def _places(self, ids: Tensor) -> Tensor:
        """Where each id stands, if it does."""
        last = self.ids.shape[0] - 1
        if ids.shape[0] < self.many:
            return torch.searchsorted(self.ids, ids).clamp(max=last)
        slots = ((ids * self.factor) >> 40) & (self.remembered.shape[0] - 1)
        places = self.remembered[slots].to(torch.int64)
        other = (self.ids[places] != ids).nonzero().squeeze(1)
        searched = torch.searchsorted(self.ids, ids[other]).clamp(max=last)
        places[other] = searched
        self.remembered[slots[other]] = searched.to(torch.int32)
        return places


class IdentityMap(nn.Module):
    """id int64 [N] -> the same; ids are checked when data is read (a table reads row 0 for an id out of range)."""

    def forward(self, ids: Tensor) -> Tensor:
        return ids


def map_of(table: Table, share: Share | None = None) -> nn.Module:
    """The map that the table is declared with. share: the part of a table's dynamic ids that is held here;
    None: all.
    """
    if table.mapping == "hash":
        return HashMap(table.rows)
    if table.mapping == "multi_hash":
        return MultiHashMap(table.rows, table.hashes)
    if table.mapping == "growing":
        return GrowingMap(table, share)
    if table.mapping == "managed":
        return EvictingMap(table, share)
    return VocabularyMap(table.rows) if table.mapping == "vocabulary" else IdentityMap()
