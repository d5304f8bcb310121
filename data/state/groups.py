"""The state of all groups of a kind: of each what was counted, when it was last met, and its last events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coldrank.data.asof import NONE
from coldrank.data.errors import UserError
from coldrank.data.state.run import SORT, Int64s, SortedRun, merged, sort_key, sorted_batches

# Runs of about the same size are merged: the older of two is more than so many times the newer.
_GROWTH = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupLayout:
    """What is kept of each group of a kind."""

    name: str
    """Name of the kind: user, item, user_x_author."""
    keys: tuple[str, ...]
    """Its keys."""
    signals: tuple[str, ...]
    """What is counted, beside events."""
    first: bool = False
    """Whether the time of the first event is kept."""
    last: bool = False
    """Whether the time of the last event is kept."""
    tails: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """History -> what is kept of each of its last events: name -> type in Arrow."""

    def columns(self) -> dict[str, pa.DataType]:
        """The values of a group, by name."""
        columns: dict[str, pa.DataType] = {"views": pa.int32()}
        columns |= {f"{what}:{s}": pa.int32() for s in self.signals for what in ("positives", "known")}
        columns |= {n: pa.int64() for n, kept in (("first", self.first), ("last", self.last)) if kept}
        lists = {f"{history}:{n}": kind for history, kept in self.tails.items() for n, kind in kept.items()}
        return columns | {f"tail:{n}": pa.list_(pa.type_for_alias(kind)) for n, kind in lists.items()}

    def schema(self) -> pa.Schema:
        """Of a file: what it is sorted by, the keys, the values."""
        keys = {SORT: pa.int64()} | {f"key:{k}": pa.int64() for k in self.keys}
        return pa.schema([pa.field(n, kind, nullable=False) for n, kind in (keys | self.columns()).items()])


@dataclass(frozen=True, slots=True)
class Tail:
    """The last events of a history, of G groups."""

    lengths: Int64s
    """How many are kept of each group, int64 [G]."""
    values: dict[str, NDArray[Any]]
    """What is kept of these, group after group, oldest first, [V]."""

    @classmethod
    def none(cls, groups: int, kept: Mapping[str, str]) -> "Tail":
        """Of groups that were not met."""
        return cls(np.zeros(groups, np.int64), {n: np.empty(0, np.dtype(kind)) for n, kind in kept.items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupValues:
    """What is kept of G groups."""

    views: Int64s
    """Events, int64 [G]."""
    positives: dict[str, Int64s]
    """Signal -> events in which it was 1, int64 [G]."""
    known: dict[str, Int64s]
    """Signal -> events in which it was known, int64 [G]."""
    first: Int64s
    """Time of the first event, int64 [G]; NONE where there was none, or it is not kept."""
    last: Int64s
    """The same of the last event."""
    tails: dict[str, Tail]
    """History -> its last events."""

    @classmethod
    def none(cls, groups: int, layout: GroupLayout) -> "GroupValues":
        """Of groups that were not met."""
        zeros, never = np.zeros(groups, np.int64), np.full(groups, NONE)
        counts = dict.fromkeys(layout.signals, zeros)
        tails = {history: Tail.none(groups, kept) for history, kept in layout.tails.items()}
        return cls(views=zeros, positives=counts, known=counts, first=never, last=never, tails=tails)


class GroupState:
    """The groups of one kind. The newest of its runs that holds a group has its values."""

    def __init__(self, layout: GroupLayout, runs: Sequence[Path] = (), folder: Path | None = None) -> None:
        """runs: files, the oldest first. folder: where new ones are written; None: they stay in memory.

        Raises Arrow's errors and OSError.
        """
        self.layout, self.folder = layout, folder
        self._schema = layout.schema()
        self._names = tuple(f"key:{k}" for k in layout.keys)
        self._written = 0
        self.runs = [SortedRun.open(path, self._names) for path in runs]

    def find(self, keys: Sequence[Int64s]) -> GroupValues:
        """The values of G different groups. keys: for each key, int64 [G]."""
        count = len(keys[0])
        if not (self.runs and count):
            return GroupValues.none(count, self.layout)
        sort = sort_key(keys)
        left = np.argsort(sort, kind="stable")
        parts, groups = [], []
        columns = list(self.layout.columns())
        for run in reversed(self.runs):
            rows = run.find(sort[left], [k[left] for k in keys])
            found = rows >= 0
            if found.any():
                parts.append(run.take(rows[found], columns))
                groups.append(left[found])
            left = left[~found]
        if len(left):
            parts.append(self._unmet(len(left)))
            groups.append(left)
        place = np.empty(count, np.int64)
        place[np.concatenate(groups)] = np.arange(count)
        return self.values(pa.concat_tables(parts).combine_chunks().take(pa.array(place)))

    def put(self, keys: Sequence[Int64s], values: GroupValues) -> None:
        """Sets the values of G different groups."""
        if not len(values.views):
            return
        batches = sorted_batches(self.table(keys, values))
        self.runs.append(self._run(list(batches)))
        while len(self.runs) > 1 and self.runs[-2].rows <= _GROWTH * self.runs[-1].rows:
            self._merge()

    def merged(self) -> SortedRun | None:
        """All groups in one run; None: there are none."""
        while len(self.runs) > 1:
            self._merge()
        return self.runs[0] if self.runs else None

    def _merge(self) -> None:
        """Brings the last two runs into one."""
        older, newer = self.runs[-2:]
        self.runs[-2:] = [self._run(merged(older, newer))]
        for run in (older, newer):
            if run.path is not None and run.path.parent == self.folder:
                run.path.unlink()  # what is mapped stays readable

    def all_views(self) -> tuple[Int64s, Int64s]:
        """The first key of all groups, ascending, and how many events each had: int64 [G]."""
        keys, views = np.empty(0, np.int64), np.empty(0, np.int64)
        for run in self.runs:
            new = [b.column(self._names[0]).to_numpy() for b in run.batches]
            counts = [b.column("views").to_numpy() for b in run.batches]
            both = np.concatenate([*new, keys])
            # The first of equal ones is that of the newer run.
            kept = np.unique(both, return_index=True)[1]
            keys, views = both[kept], np.concatenate([*counts, views])[kept].astype(np.int64)
        return keys, views

    def _run(self, batches: Any) -> SortedRun:
        if self.folder is None:
            return SortedRun(None, list(batches), self._names)
        self._written += 1
        return SortedRun.write(self.folder / f"new-{self._written}.arrow", self._schema, batches, self._names)

    def _unmet(self, rows: int) -> pa.Table:
        none = GroupValues.none(rows, self.layout)
        return self.table([none.views] * len(self.layout.keys), none).select(list(self.layout.columns()))

    def table(self, keys: Sequence[Int64s], values: GroupValues) -> pa.Table:
        """The rows of a file of G groups. keys: for each key, int64 [G].

        Raises UserError for a group of more events than counters hold.
        """
        if len(values.views) and (most := int(values.views.max())) >= 2**31:
            raise UserError(
                f"group {self.layout.name!r}: one has {most:,} events; should be fewer than 2^31, as counted"
            )
        columns: dict[str, Any] = {SORT: sort_key(keys)} | dict(zip(self._names, keys, strict=True))
        columns["views"] = values.views
        for signal in self.layout.signals:
            columns[f"positives:{signal}"] = values.positives[signal]
            columns[f"known:{signal}"] = values.known[signal]
        columns |= {"first": values.first, "last": values.last}
        for history, tail in values.tails.items():
            offsets = np.append(0, np.cumsum(tail.lengths)).astype(np.int32)
            columns |= {
                f"tail:{history}:{n}": pa.ListArray.from_arrays(offsets, pa.array(v)) for n, v in tail.values.items()
            }
        arrays = [pa.array(columns[f.name]).cast(f.type) for f in self._schema]
        return pa.Table.from_arrays(arrays, schema=self._schema)

    def values(self, table: pa.Table) -> GroupValues:
        """What rows of a file say."""
        columns = {n: table.column(n).combine_chunks() for n in table.column_names}
        numbers = {n: c.to_numpy().astype(np.int64) for n, c in columns.items() if not n.startswith("tail:")}
        none = np.full(len(table), NONE)
        return GroupValues(
            views=numbers["views"],
            positives={s: numbers[f"positives:{s}"] for s in self.layout.signals},
            known={s: numbers[f"known:{s}"] for s in self.layout.signals},
            first=numbers.get("first", none),
            last=numbers.get("last", none),
            tails={h: _tail({n: columns[f"tail:{h}:{n}"] for n in kept}) for h, kept in self.layout.tails.items()},
        )


def _tail(lists: dict[str, pa.ListArray]) -> Tail:
    lengths = np.diff(next(iter(lists.values())).offsets.to_numpy()).astype(np.int64)
    return Tail(lengths, {n: array.flatten().to_numpy() for n, array in lists.items()})
