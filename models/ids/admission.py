"""How often ids without a row have been seen: an id gets its row at its n-th event (`Table.min_count`).

Counts lie with the blocks of ids, so that they do not depend on how many ranks there are.
"""

import torch
from torch import Tensor, nn

from coldrank.models.features import Table
from coldrank.models.ids.mixing import BLOCKS, Share, block_of, mix64
from coldrank.models.ids.pairs import Pairs, indexed, place

DEPTH = 4  # rows of counters of a sketch, each with a hash of its own
MOST = 255  # that a counter holds


class Counts(Pairs):
    """The exact counts of the ids that wait: 16 bytes for each."""

    def add(self, ids: Tensor, events: Tensor) -> Tensor:
        """Counts events int64 [N], some of them 0, of ids [N], ascending and distinct; how many each has now."""
        total, new = events.clone(), events > 0
        for index in (self.known, self.tail):
            if index.shape[1]:
                at, there = place(index, ids)
                index[1][at[there]] += events[there]
                total[there], new = index[1][at[there]], new & ~there
        self.insert(torch.stack([ids, events])[:, new])
        return total

    def forget(self, ids: Tensor) -> None:
        """Lets go of ids [N] that have their rows."""
        for index in (self.known, self.tail):
            if index.shape[1]:
                at, there = place(index, ids)
                index[1][at[there]] = 0  # gone with the next merge

    def clear(self) -> None:
        """Lets go of all ids."""
        self.take(self.known[:, :0])

    def merge_tail(self) -> None:
        """Moves the tail into `known`, without the ids that are let go."""
        tail, self.tail = self.tail[:, self.tail[1] > 0], self.tail[:, :0]
        self.known = indexed(self.known[:, self.known[1] > 0])
        self.tail = tail
        super().merge_tail()


class Sketch(nn.Module):
    """A count-min sketch with conservative update (Estan and Varghese 2002): counts that are too high where ids share
    all their counters with others, and never too low.

    counters: uint8 [DEPTH, W], of the blocks of ids that are held here, one after the other, each with its own; at 255
    they stay.
    """

    counters: Tensor

    def __init__(self, counters: int, blocks: int = BLOCKS, share: Share | None = None) -> None:
        """counters: of all blocks, a multiple of DEPTH * BLOCKS. blocks: of the table, in which ids are shared out."""
        super().__init__()
        mine = (share or Share(0, 1)).blocks(blocks)
        # The finer blocks that are in them.
        self.first_block, end = (-(-block * BLOCKS // blocks) for block in (mine.start, mine.stop))
        self.held, self.width = ("counters",), counters // (DEPTH * BLOCKS)
        size = self.width * (end - self.first_block)
        self.register_buffer("counters", torch.zeros(DEPTH, size, dtype=torch.uint8))

    def add(self, ids: Tensor, events: Tensor) -> Tensor:
        """Counts events int64 [N], some of them 0, of ids [N], distinct; how many each has had now, at most."""
        starts = (block_of(ids) - self.first_block) * self.width
        slots, mixed = [], mix64(ids)
        for _ in range(DEPTH):
            mixed = mix64(mixed)
            slots.append(starts + torch.remainder(mixed, self.width))
        at = torch.stack(slots)
        total = self.counters.gather(1, at).amin(0).to(torch.int64) + events
        # The largest of the ids that share a counter, in whatever order they come.
        raised = total.clamp(max=MOST).to(torch.uint8).expand(DEPTH, -1)
        self.counters.scatter_reduce_(1, at, raised, "amax")
        return total

    def forget(self, ids: Tensor) -> None:
        """Nothing is let go of."""

    def clear(self) -> None:
        """Sets all counters to 0."""
        self.counters.zero_()


def admission_of(table: Table, blocks: int, share: Share | None) -> Counts | Sketch | None:
    """What counts the events of a table's ids, of those that are held here; None where the first is enough. blocks: in
    which its ids are shared out."""
    if table.min_count == 1:
        return None
    return Counts(blocks) if table.admission == "exact" else Sketch(table.counters, blocks, share)
