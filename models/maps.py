"""How a raw 64-bit id becomes a row of its table. What a map has learnt lies in buffers and travels with the
checkpoint.

N: number of ids, H: hashes per id, R: rows of the table.
"""

from math import gcd

import torch
from torch import Tensor, nn

from coldrank.models.features import Table

_STEP = -7046029254386353131
_LARGEST = (1 << 63) - 1
# Of how many ids on remembering places saves time, and how many places are remembered at most.
_MANY, _REMEMBERED = 4096, 1 << 22


def mix64(ids: Tensor) -> Tensor:
    """Mixes int64 [..] into int64 [..], one to one: near ids end far apart. Scriptable.

    The step, the two multipliers and the three shifts of splitmix64 (Steele, Lea and Flood 2014), as signed numbers.
    """
    x = ids + -7046029254386353131
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


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
        self.register_buffer("ids", torch.full((rows - 1,), _LARGEST))
        size = min(_REMEMBERED, 1 << (2 * rows).bit_length())
        self.register_buffer("remembered", torch.zeros(size, dtype=torch.int32), persistent=False)
        self.many, self.factor, self.largest = _MANY, _STEP, _LARGEST  # a script knows no constants of the file

    def set(self, ids: Tensor) -> None:
        """Takes the distinct ids [V], V <= rows - 1."""
        self.ids.fill_(_LARGEST)
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


class DynamicMap(nn.Module):
    """id int64 [N] -> row int64 [N]: 1..R-1 for the ids that were added, each its own, 0 for every other.

    One thread may add ids while others look ids up: what they read is never changed, but replaced, and a row once given
    stays. The n-th id gets row 1 + n * stride mod (R - 1), so that a table that is not full is used evenly by those who
    hold a block of its rows each.

    known: int64 [2, R - 1], ids ascending and their rows; behind them the largest id with row 0. size: ids added.
    missed: values that found the table full. All three are the checkpoint's. tail: int64 [2, M], the ids added last, a
    sixteenth at most, so that an addition costs little; `state_dict` merges them into `known` first.
    """

    known: Tensor
    tail: Tensor
    size: Tensor
    missed: Tensor

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.places = rows - 1
        self.stride = _stride(self.places)
        self.register_buffer("known", _padded(torch.empty(2, 0, dtype=torch.int64), self.places))
        self.register_buffer("tail", torch.empty(2, 0, dtype=torch.int64), persistent=False)
        self.register_buffer("size", torch.zeros((), dtype=torch.int64))
        self.register_buffer("missed", torch.zeros((), dtype=torch.int64))
        self.register_state_dict_pre_hook(_merge_tail)

    def forward(self, ids: Tensor) -> Tensor:
        tail = self.tail  # before `known`: an id that leaves it is there by then
        rows = _find(self.known, ids)
        if tail.shape[1] > 0:
            missing = (rows == 0).nonzero().squeeze(1)
            rows[missing] = _find(tail, ids[missing])
        return rows

    def add(self, ids: Tensor) -> Tensor:
        """Gives rows to ids [N], ascending, distinct and without a row; int64 [N], 0 from where the table is full."""
        size = int(self.size)
        count = min(len(ids), self.places - size)
        rows = torch.zeros_like(ids)
        rows[:count] = self._rows(size, size + count)
        self.tail = _merged(self.tail, torch.stack([ids[:count], rows[:count]]))
        self.size += count
        if self.tail.shape[1] > max(4096, size // 16):
            self.merge_tail()
        return rows

    def first(self, size: int) -> Tensor:
        """`known` as it was after the first `size` ids; the tail has to be empty."""
        if size == int(self.size):
            return self.known
        early = torch.zeros(self.places + 1, dtype=torch.bool)
        early[self._rows(0, size)] = True
        return _padded(self.known[:, early[self.known[1]]], self.places)

    def merge_tail(self) -> None:
        """Moves the tail into `known`."""
        if self.tail.shape[1]:
            self.known = _padded(_merged(self.known[:, : int(self.size) - self.tail.shape[1]], self.tail), self.places)
            self.tail = self.tail[:, :0]

    def _rows(self, start: int, end: int) -> Tensor:
        """Rows of the ids `start`..`end - 1` in the order of their addition."""
        return 1 + torch.arange(start, end) * self.stride % self.places


class EvictingMap(nn.Module):
    """id int64 [N] -> row int64 [N]: 1..R-1 for the ids that hold a row, 0 for every other. Who holds one is TorchRec's
    managed collision's to say (`train/ids/eviction.py`), whose state lies here.

    ids: int64 [R], ascending, the largest number where none is. places: int64 [R], the place of each in 0..R-2; the
    last is nobody's. scores: int64 [R], when each was last read, or how often. steps: int64 [1], batches taken. missed:
    values that found the table full of better ids. evicted: ids that lost their row.
    """

    ids: Tensor
    places: Tensor
    scores: Tensor
    steps: Tensor
    missed: Tensor
    evicted: Tensor

    def __init__(self, rows: int, eviction: str) -> None:
        super().__init__()
        self.rows, self.eviction, self.stride = rows, eviction, _stride(rows - 1)
        self.largest = _LARGEST
        self.register_buffer("ids", torch.full((rows,), _LARGEST))
        self.register_buffer("places", torch.arange(rows))
        self.register_buffer("scores", torch.zeros(rows, dtype=torch.int64))
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("missed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("evicted", torch.zeros((), dtype=torch.int64))

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.searchsorted(self.ids, ids).clamp(max=self.rows - 1)
        known = (self.ids[places] == ids) & (ids < self.largest)
        return torch.where(known, self.rows_at(self.places[places]), torch.zeros_like(places))

    def rows_at(self, places: Tensor) -> Tensor:
        """Rows of places in 0..R-2: apart, so that a table that is not full is used evenly by those who hold a block of
        it."""
        return 1 + places * self.stride % (self.rows - 1)

    def size(self) -> int:
        """Ids that hold a row."""
        return int((self.ids < self.largest).sum())


def map_of(table: Table) -> nn.Module:
    """The map that the table is declared with."""
    if table.mapping == "hash":
        return HashMap(table.rows)
    if table.mapping == "multi_hash":
        return MultiHashMap(table.rows, table.hashes)
    if table.mapping == "growing":
        return DynamicMap(table.rows)
    if table.mapping == "managed":
        return EvictingMap(table.rows, table.eviction)
    return VocabularyMap(table.rows) if table.mapping == "vocabulary" else IdentityMap()


def _stride(places: int) -> int:
    """A step with which one comes to every place."""
    return next(s for s in range(int(0.618 * places) + 1, 2 * places + 2) if gcd(s, places) == 1)


def _find(index: Tensor, ids: Tensor) -> Tensor:
    """Rows of ids by an index [2, M], M > 0; 0 for ids that are not in it."""
    places = torch.searchsorted(index[0], ids).clamp(max=index.shape[1] - 1)
    return torch.where(index[0][places] == ids, index[1][places], torch.zeros_like(places))


def _merged(index: Tensor, new: Tensor) -> Tensor:
    """Two indices [2, M], [2, N] of different ids as one [2, M + N]."""
    places = torch.searchsorted(index[0].contiguous(), new[0].contiguous()) + torch.arange(new.shape[1])
    old = torch.ones(index.shape[1] + new.shape[1], dtype=torch.bool)
    old[places] = False
    whole = torch.empty(2, len(old), dtype=torch.int64)
    whole[:, places] = new
    whole[:, old] = index
    return whole


def _padded(index: Tensor, places: int) -> Tensor:
    whole = torch.tensor([[_LARGEST], [0]]).repeat(1, places)
    whole[:, : index.shape[1]] = index
    return whole


def _merge_tail(module: nn.Module, *_: object) -> None:
    assert isinstance(module, DynamicMap)
    module.merge_tail()
