"""The items that are there, in the order in which they came, and what is known of each."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from coldrank.data.negatives.sources import BIRTH, Sources, unknown

Int64s = NDArray[np.int64]
NEVER = np.iinfo(np.int64).max
_LAST = "last:"


class Catalogue:
    """I items, sorted by since when they are there, then by id: the first n are those of a time, whatever comes later.

    An item is there from its birth on, where the table of items tells it, and after its first event.
    """

    def __init__(self, sources: Sources, kinds: dict[str, pl.DataType]) -> None:
        """kinds: the types of the columns `sources.last`."""
        born = sources.table.filter(pl.col(BIRTH).is_not_null()) if BIRTH in sources.table.columns else pl.DataFrame()
        self.kinds = {n: kinds[n] for n in sources.last}
        self.items: Int64s = np.array(born["item_id"] if len(born) else [], np.int64)
        self.since: Int64s = np.array(born[BIRTH] if len(born) else [], np.int64)
        self.first = np.full(len(self.items), NEVER)
        """Time of the first event, int64 [I]; NEVER where there was none."""
        self.counts, self.recent = np.zeros(len(self.items), np.int64), np.zeros(len(self.items), np.int64)
        """Events before `boundary`, and from then on, int64 [I]."""
        self.boundary = -NEVER
        self.last = unknown(self.kinds, len(self.items))
        """Of the last event of each, [I]."""
        self._in_order()

    def place(self, items: Int64s) -> Int64s:
        """Where some items stand, int64 [R]; -1: nowhere."""
        by_id = self.items[self._by_id]
        near = np.minimum(np.searchsorted(by_id, items), max(len(by_id) - 1, 0))
        known = by_id[near] == items if len(by_id) else np.zeros(len(items), bool)
        return np.where(known, self._by_id[near] if len(by_id) else -1, -1)

    def meet(self, item: Int64s, time: Int64s) -> None:
        """Takes the items of events in order, [N]: they are there after the first of each."""
        items, rows = np.unique(item, return_index=True)
        first, places = time[rows], self.place(items)
        known = places[places >= 0]
        new = items[places < 0], first[places < 0]
        self.first[known] = np.minimum(self.first[known], first[places >= 0])
        self.since[known] = np.minimum(self.since[known], self.first[known] + 1)
        zeros = np.zeros(len(new[0]), np.int64)
        self.items, self.first = np.concatenate([self.items, new[0]]), np.concatenate([self.first, new[1]])
        self.since = np.concatenate([self.since, new[1] + 1])
        self.counts, self.recent = np.concatenate([self.counts, zeros]), np.concatenate([self.recent, zeros])
        self.last = pl.concat([self.last, unknown(self.kinds, len(zeros))]) if self.kinds else self.last
        self._in_order()

    def ends(self, time: Int64s) -> Int64s:
        """How many items are there at some times, int64 [E]."""
        return np.searchsorted(self.since, time, side="right")

    def pass_to(self, boundary: int) -> None:
        """From now on `counts` are those before a time that comes after all events that were counted."""
        if boundary > self.boundary:
            self.counts, self.recent, self.boundary = self.counts + self.recent, np.zeros_like(self.recent), boundary

    def write(self, path: Path) -> None:
        """The items with events, as an Arrow file."""
        columns: dict[str, Any] = {n: getattr(self, n) for n in ("items", "first", "counts", "recent")}
        columns["boundary"] = np.full(len(self.items), self.boundary)
        columns |= {_LAST + n: self.last[n] for n in self.kinds}
        table = pl.DataFrame(columns).filter(pl.col("first") < NEVER).rechunk().to_arrow()
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)

    def read(self, path: Path) -> None:
        """Takes the items of a file of `write`, before any other. Raises OSError and Arrow's errors."""
        with pa.OSFile(str(path)) as file:
            frame = pl.DataFrame(pl.from_arrow(pa.ipc.open_file(file).read_all()))
        items, first, counts, recent, boundary = (frame[n].to_numpy() for n in frame.columns[:5])
        order = np.argsort(first, kind="stable")
        self.meet(items[order], first[order])
        places = self.place(items)
        self.counts[places], self.recent[places], self.boundary = counts, recent, int(boundary[0])
        if self.kinds:
            rows = np.arange(len(self.items))
            rows[places] = len(rows) + np.arange(len(places))
            of_file = frame.select(pl.col(_LAST + n).cast(kind).alias(n) for n, kind in self.kinds.items())
            self.last = pl.concat([self.last, of_file]).select(pl.all().gather(pl.Series(rows)))

    def _in_order(self) -> None:
        order = np.lexsort((self.items, self.since))
        if (np.diff(order) != 1).any():
            names = ("items", "since", "first", "counts", "recent")
            self.items, self.since, self.first, self.counts, self.recent = (getattr(self, n)[order] for n in names)
            self.last = self.last.select(pl.all().gather(pl.Series(order)))
        self._by_id = np.argsort(self.items, kind="stable")
