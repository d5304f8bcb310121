"""The events of a log in one canonical form: checked, without exact duplicates, sorted by (time, user_id, item_id)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coldrank.data.agree import FileColumns, nature
from coldrank.data.columns import ColumnPlan, check_rows_alone, convert
from coldrank.data.errors import RowError, UserError
from coldrank.data.files import check_columns
from coldrank.data.identity import row_identity
from coldrank.data.ids import as_bytes, as_column, check_finite, is_text, narrow, whole_ids
from coldrank.data.log import SAMPLED, Column, EventLog, LogFile, LogSpec, expression
from coldrank.data.times import DAY_MS
from coldrank.data.vectors import is_vector
from coldrank.data.weighted import is_weighted

# Whether an event's user is not known.
ANONYMOUS = "anonymous:"
# So many rows of so many files show whether an expression reads its own row alone.
_ROWS_ALONE, _ROWS_ALONE_FILES = 256, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Events:
    """N events of a log, in order: all of an interval of time."""

    frame: pl.DataFrame
    """user_id, item_id, time, label_<task>, the context and true_<task>, as they are written."""
    time: NDArray[np.int64]
    """Milliseconds since the epoch, int64 [N]."""
    day: NDArray[np.int32]
    """Days since the epoch in the log's own calendar, int32 [N]."""
    birth: pl.Series
    """When the event's item appeared, int64 [N], ms since the epoch; null where unknown."""
    anonymous: NDArray[np.bool_]
    """Whether the event's user is not known, bool [N]: no group of users has it, and no state keeps it."""
    keys: dict[str, NDArray[np.int64]]
    """Key of a group -> its value, int64 [N]; 0 where unknown, of users -1."""
    codes: dict[str, NDArray[np.int32]]
    """Key of a group -> its value, int32 [N], 0, 1, ...; -1 where unknown."""
    signals: dict[str, NDArray[np.int8]]
    """Signal -> its outcome, int8 [N]; -1 where unknown."""
    attributes: dict[str, NDArray[Any]]
    """Attribute of the history -> its value: int64 [N], -1 where unknown; of numbers float32 [N], NaN where unknown."""
    known: dict[str, NDArray[np.int64]]
    """Signal with a delay -> when its outcome is known, int64 [N], ms since the epoch."""
    sampled: NDArray[np.bool_] | None = None
    """Which are sampled negatives, each after its event, bool [N]: they count nowhere. None: none is."""

    @property
    def known_users(self) -> NDArray[np.int64]:
        """The users of the events that are not anonymous, int64 [M]."""
        return self.keys["user"][~self.anonymous]


def as_events(frame: pl.DataFrame, log: EventLog, plan: list[ColumnPlan], *, coded: bool = True) -> Events:
    """Rows of the planned columns, sorted, as events. coded: whether with the codes of their keys."""
    spec = log.spec
    columns = {"user": "user_id", "item": "item_id"} | {name: f"key:{name}" for name in spec.keys}
    anonymous = frame[ANONYMOUS]
    values = {key: frame[column] for key, column in columns.items()}
    values["user"] = values["user"].set(anonymous, None)
    return Events(
        frame=frame.select(n for n in [*(c.name for c in plan), SAMPLED] if ":" not in n and n in frame.columns),
        time=frame["time"].to_numpy(),
        day=frame.select(pl.col("day:").fill_null(local_day(pl.col("time"), spec))).to_series().to_numpy(),
        birth=frame["birth:"],
        anonymous=anonymous.to_numpy(),
        keys={key: of.fill_null(-1 if key == "user" else 0).to_numpy() for key, of in values.items()},
        codes={key: _dense(of) for key, of in values.items()} if coded else {},
        signals={s: frame[f"signal:{s}"].fill_null(-1).to_numpy() for s in spec.all_signals()},
        attributes={a: frame[f"history:{a}"].fill_null(-1).to_numpy() for a in spec.history}
        | {a: frame[f"history:{a}"].fill_null(float("nan")).to_numpy() for a in spec.history_numbers},
        known={s: (frame["time"] + _delay(frame, s, after)).to_numpy() for s, after in spec.known_after.items()},
        sampled=(frame[SAMPLED] == 1).to_numpy() if SAMPLED in frame.columns else None,
    )


def _delay(frame: pl.DataFrame, signal: str, after: float | Column) -> pl.Series | int:
    """How long an outcome takes to be known, in ms."""
    return round(1000 * after) if isinstance(after, int | float) else frame[f"delay:{signal}"]


def local_day(time: pl.Expr, spec: LogSpec) -> pl.Expr:
    """The day of times in ms in the spec's zone, or at its offset from UTC, int32."""
    if spec.time_zone is not None:
        moment = time.cast(pl.Datetime("ms", "UTC")).dt.convert_time_zone(spec.time_zone)
        return moment.dt.date().to_physical().cast(pl.Int32)
    return ((time + round(spec.utc_offset_h * 3_600_000)) // DAY_MS).cast(pl.Int32)


def in_order(frame: pl.DataFrame, keep_duplicates: bool) -> tuple[pl.DataFrame, int]:
    """Rows sorted by time, user and item, and how many equal an earlier one; these are dropped unless they are kept.

    Rows with the same values in all columns of the log (`row_identity`) are one event. Events of the same time, user
    and item that differ elsewhere all stay, in the order of the files and of their rows.
    """
    frame = frame.sort("time", "user_id", "item_id", maintain_order=True)
    first = _first_of_equals(frame)
    duplicates = len(first) - int(first.sum())
    return frame if keep_duplicates or not duplicates else frame.filter(pl.Series(first)), duplicates


def plan_columns(log: EventLog) -> list[ColumnPlan]:
    """What is computed from the rows of the log. Names with a colon are not written to the samples.

    Raises UserError if two have the same name.
    """
    spec = log.spec
    user = pl.lit(None, pl.Int64) if spec.user is None else spec.user
    plan = [ColumnPlan("user_id", "id", user, may_lack=spec.user is None or spec.anonymous == "own")]
    plan += [ColumnPlan("item_id", "id", spec.item)]
    plan += [ColumnPlan("time", "time", spec.time, spec.time_unit, spec.time_format, spec.time_zone)]
    plan += [ColumnPlan(f"label_{n}", "flag", c) for n, c in spec.tasks.items()]
    plan += [ColumnPlan(f"label_{n}", "number", c) for n, c in spec.numbers.items()]
    plan += [ColumnPlan(f"label_{n}", "level", c) for n, c in spec.levels.items()]
    if spec.weight is not None:
        plan += [ColumnPlan("weight", "weight", spec.weight)]
    if log.users is None:
        plan += [ColumnPlan(f"user_{n}", "feature", c) for n, c in spec.user_features.items()]
    if log.items is None:
        plan += [ColumnPlan(f"item_{n}", "feature", c) for n, c in spec.item_features.items()]
    plan += [ColumnPlan(n, "feature", c) for n, c in spec.context.items()]
    plan += [ColumnPlan(f"true_{n}", "probability", c) for n, c in spec.truth.items()]
    plan += [ColumnPlan(f"signal:{n}", "flag", c) for n, c in spec.all_signals().items()]
    plan += [ColumnPlan(f"key:{n}", "code", c) for n, c in spec.keys.items()]
    plan += [ColumnPlan(f"history:{n}", "code", c) for n, c in spec.history.items()]
    plan += [ColumnPlan(f"history:{n}", "number", c) for n, c in spec.history_numbers.items()]
    plan += [
        ColumnPlan(f"delay:{n}", "delay", c) for n, c in spec.known_after.items() if not isinstance(c, int | float)
    ]
    missing = pl.lit(None, pl.Int64)
    birth = missing if spec.item_birth is None else spec.item_birth
    plan += [ColumnPlan("birth:", "birth", birth, zone=spec.time_zone)]
    plan += [ColumnPlan("day:", "day", pl.lit(None, pl.Date) if spec.day is None else spec.day)]
    names = [c.name for c in plan]
    if repeated := [n for n in names if names.count(n) > 1]:
        raise UserError(f"spec: two columns are named {repeated[0]!r}; rename the feature or context")
    return plan


def read_slices(
    file: LogFile, log: EventLog, plan: list[ColumnPlan], rows: int, *, first: int = 0, count: int | None = None
) -> Iterator[FileColumns]:
    """The planned columns of a file, one row per row of the file, with a hash of the whole row (`row:`).

    rows: of a slice, about. first, count: some rows of the file alone. Raises UserError with file, column and row.
    """
    schema = file.frame.collect_schema()
    is_number = isinstance(log.spec.time, str) and log.spec.time_format is None
    times = {str(log.spec.time): log.spec.time_unit} if is_number else {}
    frame = file.frame.with_columns(row_identity(schema, times).alias("row:"))
    tables = {n for t in (log.users, log.items) if t is not None for n in t.columns}
    for column in plan:
        check_columns(file.path, schema.names(), [n for n in column.inputs() if n not in tables])
    before = first
    try:
        if first or count is not None:
            frame = frame.slice(first, count)
        frame = _join(file, frame, log.users, plan[0])
        frame = _join(file, frame, log.items, plan[1])
        if first == 0 and file.path in [known.path for known in log.files[:_ROWS_ALONE_FILES]]:
            check_rows_alone(frame.head(_ROWS_ALONE).collect(), plan, file.path)
        frame = frame.select("row:", *(expression(c.source).alias(c.name) for c in plan))
        for values in frame.collect_batches(chunk_size=rows, maintain_order=True):
            if len(values):
                yield _converted(values, plan, file.path, before)
            before += len(values)
    except pl.exceptions.PolarsError as error:
        raise file.explain(error) from None


def _converted(values: pl.DataFrame, plan: list[ColumnPlan], path: Path, before: int) -> FileColumns:
    """before: rows of the file before these."""
    try:
        frame = values.with_columns(convert(c, values[c.name], path) for c in plan)
    except RowError as error:
        raise error.moved(before) from None
    # The row is its user: the same whenever it is read, and another than all others.
    frame = frame.with_columns(
        pl.col("user_id").fill_null(pl.col("row:").reinterpret(signed=True)),
        pl.col("user_id").is_null().alias(ANONYMOUS),
    )
    return FileColumns(path, frame, {c.name: nature(values[c.name]) for c in plan})


def _join(file: LogFile, frame: pl.LazyFrame, table: pl.DataFrame | None, plan: ColumnPlan) -> pl.LazyFrame:
    """The frame with the columns of the table of its users (items). plan: of their id."""
    if table is None:
        return frame
    if clash := set(frame.collect_schema().names()) & (set(table.columns) - {plan.name}):
        raise UserError(f"{file.path}: column {min(clash)} is also a column of the features by {plan.name}; rename one")
    source, key = expression(plan.source), f"{plan.name}:"
    kind, table_kind = frame.select(source).collect_schema().dtypes()[0], table[plan.name].dtype
    if is_text(kind) != is_text(table_kind) and kind != pl.Null:
        raise UserError(f"{plan.where(file.path)}: {kind}, but {table_kind} in its table; should be the same")
    right = table.lazy().rename({plan.name: key}).with_columns(_key(pl.col(key), table_kind))
    no_ids = pl.lit(None, pl.Binary if is_text(table_kind) else pl.Int64)
    left = no_ids if kind == pl.Null else _key(source, kind)
    # A column of its own: Polars 1.41 takes no selector among the keys of a join.
    return frame.with_columns(left.alias(key)).join(right, on=key, how="left", maintain_order="left").drop(key)


def _key(ids: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """As `as_column` makes ids of integers; text as its bytes. What is neither is refused later, by `convert`."""
    if is_text(kind):
        return as_bytes(ids, kind)
    return ids.reinterpret(signed=True) if kind == pl.UInt64 else ids.cast(pl.Int64, strict=False)


def _first_of_equals(frame: pl.DataFrame) -> NDArray[np.bool_]:
    """All rows but the later ones of exactly equal rows: bool [N].

    The frame is sorted by time, user_id and item_id, so equal rows lie in one run.
    """
    same = pl.all_horizontal(pl.col(n) == pl.col(n).shift(1) for n in ("time", "user_id", "item_id")).fill_null(False)
    in_run = frame.select(same | same.shift(-1, fill_value=False)).to_series()
    rows = in_run.arg_true()
    repeated = (
        frame.select(pl.struct("time", "user_id", "item_id", "row:").gather(rows))
        .to_series()
        .is_first_distinct()
        .not_()
    )
    keep = np.ones(len(frame), bool)
    keep[rows.filter(repeated).to_numpy()] = False
    return keep


def _dense(values: pl.Series) -> NDArray[np.int32]:
    """Codes 0, 1, ... by value; -1 where null."""
    return (values.rank("dense").cast(pl.Int32) - 1).fill_null(-1).to_numpy()


def static_table(table: pl.DataFrame, key: str, where: str) -> pl.DataFrame:
    """A user or item table as it is written: int64 ids in ascending order, and the columns `user_<x>` (`item_<x>`)."""
    prefix = key.removesuffix("id")
    columns = [as_column(table[n], f"{where}: column {n}") for n in table.columns if n.startswith(prefix)]
    return pl.DataFrame(columns).sort(key)


def check_table(table: pl.DataFrame, key: str, where: str, names: Mapping[str, str] | None = None) -> pl.DataFrame:
    """The table, its ids as text or integers of 64 bits. names: column -> what errors call it.

    Raises UserError for an id that is empty, stands twice, or is neither integer nor text, and for features that
    samples cannot hold.
    """
    table = table.with_columns(whole_ids(table[key], f"{where}: {key}"))
    if not (is_text(table[key].dtype) or table[key].dtype.is_integer()):
        raise UserError(f"{where}: {key}: type {table[key].dtype}; should be an integer or a string")
    for what, bad in (("is empty", table[key].is_null()), ("stands twice", table[key].is_duplicated())):
        if bad.any():
            row = int(bad.arg_true()[0])
            raise UserError(f"{where}: {key}, row {row + 1}: {table[key][row]} {what}; should be one row per id")
    for values in (table[n] for n in table.columns if n.startswith(key.removesuffix("id")) and n != key):
        name = (names or {}).get(values.name, f"column {values.name}")
        whole = is_vector(values.dtype) or is_weighted(values.dtype)
        as_column(values if whole else values.head(0), f"{where}: {name}")
        check_finite(values, f"{where}: {name}")
    return table.with_columns(narrow(table[key], f"{where}: {key}"))
