"""One type a column over all files of a log, and ids that mean the same in every file and table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from coldrank.data.columns import ColumnPlan
from coldrank.data.errors import RowError, UserError
from coldrank.data.ids import as_bytes, is_text
from coldrank.data.log import LogFile
from coldrank.data.vectors import is_vector
from coldrank.data.weighted import ids_of, is_weighted

# What the values of two files may not be of one column: the same id would be two, or two the same.
_APART = (
    ("text", "numbers", "one value would have two ids"),
    ("integers below 0", "integers from 2^63 on", "both are kept in 64 bits, where they may meet"),
)


@dataclass(frozen=True, slots=True)
class FileColumns:
    """The columns that are read from one file."""

    path: Path
    """The file, as errors name it."""
    frame: pl.DataFrame
    """Its columns, one row per row of the file."""
    natures: dict[str, set[str]]
    """Column -> what its values are, see `nature`."""


def nature(values: pl.Series) -> set[str]:
    """The words of `_APART` that hold for a column of ids; none where it has no value."""
    if is_weighted(values.dtype):
        values = ids_of(values)
    while isinstance(values.dtype, pl.List | pl.Array):
        values = values.explode()
    values = values.fill_nan(None) if values.dtype.is_float() else values
    if values.null_count() == len(values):
        return set()
    if not values.dtype.is_numeric():
        return {"text"} if is_text(values.dtype) else {"numbers"}
    low, high = float(values.min()), values.max()  # type: ignore[arg-type]
    holds = {"integers below 0": low < 0, "integers from 2^63 on": isinstance(high, int) and high >= 2**63}
    return {"numbers", *(word for word, is_so in holds.items() if is_so)}


def fill_types(files: Sequence[LogFile]) -> list[LogFile]:
    """The files, with columns that have no type in one (all null) in the type of the first file that has one."""
    schemas = [file.frame.collect_schema() for file in files]
    known: dict[str, pl.DataType | type[pl.DataType]] = {}
    for schema in schemas:
        for name, kind in schema.items():
            if kind != pl.Null:
                known.setdefault(name, pl.String if is_text(kind) and kind != pl.Binary else kind)
    filled = []
    for file, schema in zip(files, schemas, strict=True):
        names = [n for n, kind in schema.items() if kind == pl.Null and n in known]
        filled.append(replace(file, frame=file.frame.with_columns(pl.lit(None, known[n]).alias(n) for n in names)))
    return filled


def check_natures(plan: ColumnPlan, seen: Iterable[tuple[str, set[str]]]) -> None:
    """Raises UserError for two places whose values of a column do not go together.

    seen: for each place, its name and the nature of the column in it.
    """
    first: dict[str, str] = {}
    for where, words in seen:
        for one, other, why in _APART:
            for word, opposite in ((one, other), (other, one)):
                if word in words and opposite in first:
                    raise UserError(f"{where}: {plan.role()}: {word}, but {opposite} in {first[opposite]}; {why}")
        for word in words:
            first.setdefault(word, where)


class Agreement:
    """The types of a log's columns over all its files, which come slice by slice."""

    def __init__(self, plan: Sequence[ColumnPlan]) -> None:
        self.plan = plan
        # Of each column: types of slices that hold a value -> the first file; the type of the first slice.
        self.kinds: dict[str, dict[pl.DataType, Path]] = {c.name: {} for c in plan}
        self.default: dict[str, pl.DataType] = {}
        self.natures: dict[str, dict[str, set[str]]] = {c.name: {} for c in plan}
        self._inexact: dict[str, UserError] = {}

    def add(self, part: FileColumns, rows_before: int) -> None:
        """Notes a slice of a file. rows_before: rows of the file before it."""
        for column in self.plan:
            values, name = part.frame[column.name], column.name
            self.default.setdefault(name, values.dtype)
            self.natures[name].setdefault(str(part.path), set()).update(part.natures[name])
            if _is_empty(values):
                continue
            self.kinds[name].setdefault(values.dtype, part.path)
            if column.kind == "feature" and values.dtype == pl.Int64 and name not in self._inexact:
                try:
                    _as_type(values, pl.Float32(), column.where(part.path))
                except RowError as error:
                    self._inexact[name] = error.moved(rows_before)

    def merge(self, later: "Agreement") -> None:
        """Takes what another has noted of slices after these."""
        for column in self.plan:
            name = column.name
            for kind, path in later.kinds[name].items():
                self.kinds[name].setdefault(kind, path)
            for file, words in later.natures[name].items():
                self.natures[name].setdefault(file, set()).update(words)
            if name in later.default:
                self.default.setdefault(name, later.default[name])
            if name in later._inexact:
                self._inexact.setdefault(name, later._inexact[name])

    def settle(self, tables: Mapping[str, set[str]]) -> dict[str, pl.DataType]:
        """Column -> its one type. A column of nulls fits any type; integers and floats become floats.

        tables: id column -> the nature of the ids of its table.
        Raises UserError for types that do not go together, and for an integer that a float32 would change.
        """
        for column in (c for c in self.plan if c.kind in ("id", "code", "feature")):
            known = [(f"the table of {column.name}", tables[column.name])] if column.name in tables else []
            check_natures(column, [*known, *self.natures[column.name].items()])
        return {column.name: self._joint(column) for column in self.plan}

    def check_exact(self, name: str) -> None:
        """Raises UserError for an integer of a column that a float32 would change."""
        if name in self._inexact:
            raise self._inexact[name]

    def words(self, before: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Column -> the nature of all its values. before: the same of earlier ones."""
        return {
            n: sorted({*before.get(n, ()), *(w for of in by_file.values() for w in of)})
            for n, by_file in self.natures.items()
        }

    def _joint(self, column: ColumnPlan) -> pl.DataType:
        kinds = self.kinds[column.name]
        if not kinds:
            return self.default[column.name]
        if set(kinds) == {pl.Int64(), pl.Float32()}:
            self.check_exact(column.name)
            return pl.Float32()
        (kind, first), *others = kinds.items()
        for other, path in others:
            raise UserError(f"{column.where(path)}: {other}, but {kind} in {first}")
        return kind


def in_types(frame: pl.DataFrame, kinds: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """A slice with its columns in the types that `Agreement.settle` gave."""
    return frame.with_columns(_as_type(frame[name], kind, name) for name, kind in kinds.items())


def joined(parts: Sequence[FileColumns]) -> pl.DataFrame:
    """The parts of a table end to end: a column of nulls fits any type, and numbers widen.

    Raises UserError, with the file, for types that do not go together, and for an integer that a float32 would change.
    """
    if len(parts) == 1:
        return parts[0].frame
    kinds = {name: _table_type(name, parts) for name in parts[0].frame.columns}
    columns = [[_widened(p.frame[n], k, f"{p.path}: column {n}") for n, k in kinds.items()] for p in parts]
    return pl.concat(map(pl.DataFrame, columns))


def _widened(values: pl.Series, kind: pl.DataType, where: str) -> pl.Series:
    if kind == pl.Float64 and values.dtype.is_integer():
        _as_type(values, pl.Float32(), where)  # as features are kept
    if _is_empty(values):
        return _as_type(values, kind, where)
    return as_bytes(values, values.dtype) if kind == pl.Binary else values.cast(kind)


def _table_type(name: str, parts: Sequence[FileColumns]) -> pl.DataType:
    check_natures(ColumnPlan(name, "feature", name), ((str(p.path), p.natures[name]) for p in parts))
    filled = [p for p in parts if not _is_empty(p.frame[name])]
    kinds = {p.frame[name].dtype: p.path for p in reversed(filled)}
    if len(kinds) <= 1:
        return next(iter(kinds), parts[0].frame[name].dtype)
    if all(is_text(kind) for kind in kinds):
        return pl.Binary() if pl.Binary in kinds else pl.String()
    if all(is_vector(kind) for kind in kinds):
        return pl.List(pl.Float64)
    if all(kind.is_integer() for kind in kinds):
        large = any("integers from 2^63 on" in p.natures[name] for p in filled)
        return pl.UInt64() if large else pl.Int64()
    if all(kind.is_numeric() or kind == pl.Boolean for kind in kinds):
        return pl.Float64()
    first, other = list(kinds)[-1], list(kinds)[-2]
    raise UserError(f"{kinds[other]}: column {name}: {other}, but {first} in {kinds[first]}")


def _is_empty(values: pl.Series) -> bool:
    if isinstance(values.dtype, pl.List):
        return values.list.len().sum() == 0
    return values.null_count() == len(values)


def _as_type(values: pl.Series, kind: pl.DataType, where: str) -> pl.Series:
    if values.dtype == kind:
        return values
    if _is_empty(values):
        none: list[int] | None = [] if isinstance(kind, pl.List) else None
        return pl.Series(values.name, [none] * len(values), kind)
    wide = values.cast(kind)
    changed = (wide.cast(values.dtype, strict=False) != values).fill_null(values.is_not_null())
    if changed.any():
        row = int(changed.arg_true()[0])
        raise RowError(
            where,
            row + 1,
            f"{values[row]} would become {wide[row]:.0f}: other files hold floats here, which are kept in 32 bits;"
            " write integers in all of them",
        )
    return wide
