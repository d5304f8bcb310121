"""Samples as Arrow tables: the columns of a prepared data folder, built for some events at a time."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from coldrank.data.errors import UserError
from coldrank.data.events import Events
from coldrank.data.log import SAMPLED, LogSpec
from coldrank.data.statistics import Statistics
from coldrank.data.weighted import WEIGHTED, split

# Users of the item's last events.
ITEM_HISTORY = "item_hist_user_id"

_TYPES: dict[pl.DataType | type[pl.DataType], pa.DataType] = {
    pl.Int8: pa.int8(),
    pl.Int64: pa.int64(),
    pl.Float32: pa.float32(),
    pl.List(pl.Int64): pa.list_(pa.int64()),
    pl.List(pl.Float32): pa.list_(pa.float32()),
}


@dataclass(frozen=True, slots=True)
class SampleBuilder:
    """Builds the samples of a chunk of a log's events."""

    spec: LogSpec
    """What the log's columns mean."""
    events: Events
    """The events of the chunk."""
    statistics: Statistics
    """What was known of each event before it."""
    users: pl.DataFrame | None
    """The users' features by ascending id; None: no table."""
    items: pl.DataFrame | None
    """The items' features by ascending id; None: no table."""
    schema: pa.Schema
    """The columns of every table of samples."""

    @classmethod
    def from_events(
        cls,
        spec: LogSpec,
        events: Events,
        statistics: Statistics,
        users: pl.DataFrame | None,
        items: pl.DataFrame | None,
    ) -> "SampleBuilder":
        """Raises UserError if two columns have the same name."""
        draft = cls(spec, events, statistics, users, items, pa.schema([]))
        fields = draft._fields()
        names = [f.name for f in fields]
        if repeated := [n for n in names if names.count(n) > 1]:
            raise UserError(
                f"spec: two columns are named {repeated[0]!r}; rename the feature, context or history attribute"
            )
        return cls(spec, events, statistics, users, items, pa.schema(fields))

    def table(self, rows: NDArray[np.int64]) -> pa.Table:
        """The samples of some events, R rows. rows: the events, int64 [R]."""
        index = pl.Series(rows)
        frame = self.events.frame.select(pl.all().gather(index))
        columns = _arrays(_unpaired(frame))
        columns |= {n: pa.array(v[rows], from_pandas=True) for n, v in self.statistics.columns.items()}
        columns |= past_columns(self.statistics, rows)
        for table, key in ((self.users, "user_id"), (self.items, "item_id")):
            if table is not None:
                columns |= _arrays(_unpaired(_gather_static(table, key, frame[key].to_numpy())))
        return pa.Table.from_arrays([columns[f.name].cast(f.type) for f in self.schema], schema=self.schema)

    def _fields(self) -> list[pa.Field]:
        frame, statistics = _unpaired(self.events.frame.head(0)), self.statistics.columns
        written = {n: _TYPES[k] for n, k in frame.schema.items()}
        never_null = {"user_id", "item_id", "time", "weight", SAMPLED}
        first = ["user_id", "item_id", "time", *(f"label_{t}" for t in self.spec.labels())]
        first += ["weight"] if self.spec.weight is not None else []
        first += [SAMPLED] if self.events.sampled is not None else []
        fields = [pa.field(n, written[n], n not in never_null) for n in first]
        head = ["user_views", "item_views", "item_age_h", "user_gap_h"]
        for name in [*head, *sorted(set(statistics) - set(head), key=list(statistics).index)]:
            optional = name in ("item_age_h", "user_gap_h")
            fields.append(pa.field(name, pa.from_numpy_dtype(statistics[name].dtype), optional))
        fields += [
            pa.field(f"{prefix}{n}", pa.list_(pa.float32() if n == "hours" else pa.from_numpy_dtype(v.dtype)), False)
            for prefix, past in self.statistics.pasts.items()
            for n, v in past.values.items()
        ]
        for table, key in ((self.users, "user_id"), (self.items, "item_id")):
            if table is not None:
                schema = _unpaired(table.head(0)).schema
                fields += [_static_field(n, _TYPES[k]) for n, k in schema.items() if n != key]
        return fields + [_static_field(n, kind) for n, kind in written.items() if n not in first]


def past_columns(statistics: Statistics, rows: NDArray[np.int64]) -> dict[str, pa.Array]:
    """The histories of some events, by column."""
    columns: dict[str, pa.Array] = {}
    for prefix, past in statistics.pasts.items():
        offsets, values = past.columns(rows)
        columns |= {
            f"{prefix}{n}": pa.ListArray.from_arrays(offsets, pa.array(v, from_pandas=True)) for n, v in values.items()
        }
    return columns


def _unpaired(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with two columns in the place of each of weighted ids."""
    columns = (split(s) if s.dtype == WEIGHTED else [s] for s in frame.iter_columns())
    return pl.DataFrame([s for some in columns for s in some])


def _static_field(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=not pa.types.is_list(kind))


def _arrays(frame: pl.DataFrame) -> dict[str, pa.Array]:
    return {s.name: s.to_arrow() for s in frame.iter_columns()}


def _gather_static(table: pl.DataFrame, key: str, ids: NDArray[np.int64]) -> pl.DataFrame:
    """Rows of a table sorted by id, without the id; nulls (empty lists) for ids that it lacks."""
    known = table[key].to_numpy()
    nearest = np.minimum(np.searchsorted(known, ids), max(len(known) - 1, 0))
    in_table = known[nearest] == ids if len(known) else np.zeros(len(ids), bool)
    index = pl.Series(nearest).set(pl.Series(~in_table), None)
    result = table.drop(key).select(pl.all().gather(index))
    lists = {n: kind for n, kind in result.schema.items() if isinstance(kind, pl.List)}
    return result.with_columns(pl.col(n).fill_null(pl.lit([], dtype=kind)) for n, kind in lists.items())
