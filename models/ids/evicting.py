"""The map of a managed table."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from coldrank.models.features import Table
from coldrank.models.ids.admission import admission_of
from coldrank.models.ids.mixing import Share, block_of, stride
from coldrank.models.ids.pairs import LARGEST

# Eviction -> the buffers of what it knows of an id.
SCORES = {"lru": ("scores",), "lfu": ("scores",), "distance_lfu": ("scores", "reads")}


class EvictingMap(nn.Module):
    """id int64 [N] -> row int64 [N]: 1..R-1 for the ids that hold a row, 0 for every other. Who holds one is TorchRec's
    managed collision's to say (`train/ids/eviction.py`), whose state lies here: of each block of ids its own, with a
    K-th of the rows.

    share: the part of the ids, in whole blocks, that is held here, and that a lookup knows; None: all. held: buffers of
    it, block after block. segments: first place and end, among them, of each block held here.

    ids: int64 [R - 1 + K], ascending in a block, the largest number where none is. places: int64 [R - 1 + K], the place
    of each among the block's; a block's last is nobody's. scores: int64 [R - 1 + K], when each was last read, or how
    often; `distance_lfu` has both, how often, and `reads`, when. steps: int64 [1], batches taken. missed: values that
    found the table full of better ids. evicted: ids that lost their row. waiting: how often ids without a row were
    seen; None where the first time is enough.
    """

    ids: Tensor
    places: Tensor
    steps: Tensor
    missed: Tensor
    evicted: Tensor
    starts: Tensor
    first_places: Tensor

    def __init__(self, table: Table, share: Share | None = None) -> None:
        super().__init__()
        rows, blocks = table.rows, table.blocks
        self.rows, self.eviction, self.blocks, self.stride = rows, table.eviction, blocks, stride(rows - 1)
        self.held = ("ids", "places", *SCORES[table.eviction])
        self.min_count, self.waiting = table.min_count, admission_of(table, blocks, share)
        mine = (share or Share(0, 1)).blocks(blocks)
        # A block's first place among those of all, which is also that of its first row.
        firsts = [block * (rows - 1) // blocks for block in range(mine.start, mine.stop + 1)]
        self.first_block = mine.start
        starts = [first + n - firsts[0] for n, first in enumerate(firsts)]
        self.register_buffer("starts", torch.tensor(starts), persistent=False)
        self.register_buffer("first_places", torch.tensor(firsts), persistent=False)
        self.segments, size = list(pairwise(starts)), starts[-1]
        self.register_buffer("ids", torch.full((size,), LARGEST))
        places = [torch.arange(end - start) for start, end in self.segments]
        self.register_buffer("places", torch.cat([torch.empty(0, dtype=torch.int64), *places]))
        for name in SCORES[table.eviction]:
            self.register_buffer(name, torch.zeros(size, dtype=torch.int64))
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("missed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("evicted", torch.zeros((), dtype=torch.int64))

    def forward(self, ids: Tensor) -> Tensor:
        if not self.segments:
            return torch.zeros_like(ids)
        block = self.number(ids).clamp(0, len(self.segments) - 1)
        places = self._search(ids, block)
        known = (self.ids[places] == ids) & (ids < LARGEST)
        rows = self.rows_at(self.places[places] + self.first_places[block])
        return torch.where(known, rows, torch.zeros_like(rows))

    def number(self, ids: Tensor) -> Tensor:
        """The block of ids int64 [N], by its number among those held here; outside these for ids that are not."""
        return block_of(ids, self.blocks) - self.first_block

    def rows_at(self, places: Tensor) -> Tensor:
        """Rows of places in 0..R-2 of all: apart, so that a table that is not full is used evenly by those who hold a
        block of it."""
        return 1 + places * self.stride % (self.rows - 1)

    def held_rows(self) -> tuple[Tensor, Tensor]:
        """The ids that hold a row, int64 [N], and their rows."""
        sizes = self.starts.diff()
        firsts = self.first_places[:-1].repeat_interleave(sizes)
        some = self.ids < LARGEST
        return self.ids[some], self.rows_at(self.places[some] + firsts[some])

    def size(self) -> int:
        """Ids that hold a row, of those held here."""
        return int((self.ids < LARGEST).sum())

    def _search(self, ids: Tensor, block: Tensor) -> Tensor:
        """The first place of each id's block whose id is not below it; a block's last is never."""
        if len(self.segments) == 1:
            return torch.searchsorted(self.ids, ids).clamp(max=len(self.ids) - 1)
        low, high = self.starts[block], self.starts[block + 1] - 1
        for _ in range(int((high - low).max() if len(ids) else 0).bit_length()):
            middle = (low + high) // 2
            below = self.ids[middle] < ids
            low, high = torch.where(below, middle + 1, low), torch.where(below, high, middle)
        return low
