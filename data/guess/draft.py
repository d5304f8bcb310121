"""A first description of a log, from a look at its files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from coldrank.data.errors import UserError
from coldrank.data.guess import names
from coldrank.data.guess.look import LookedAt, parts
from coldrank.data.guess.moments import Clock, clock
from coldrank.data.guess.roles import (
    Found,
    Outcomes,
    find_birth,
    find_id,
    find_time,
    find_weight,
    groups_of,
    inputs,
    likely_item,
    odd_outcome,
    outcomes,
    owned,
    tells,
)

_NAMED = 8
# What `prepare` names columns of its own.
_TAKEN = re.compile(
    r"time|user_id|item_id|weight|sampled|split|period|(user|item)_views|item_age_h|user_gap_h"
    r"|(views|rate|hist|item_hist|label|true)_.*"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What the caller knows. Columns; None: it is guessed."""

    user: str | None = None
    """Empty: the log has no users."""
    item: str | None = None
    time: str | None = None
    labels: tuple[str, ...] = ()
    """Of 0 and 1. Empty: guessed."""
    header: tuple[str, ...] = ()
    """The columns of CSV and TSV files that do not name them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableDraft:
    """A table of users or of items."""

    path: str
    """Relative to the data folder."""
    rows: pl.DataFrame
    """Some rows."""
    total: int
    """How many rows it has, about."""
    null_values: tuple[str, ...]
    """What means null in it."""
    key: str
    """The column of its ids."""
    inputs: list[Found]
    """Its other columns that may be inputs."""
    left: dict[str, str]
    """Its columns that are none, and why."""
    birth: str | None = None
    """Of items: the column that says when they appeared."""


@dataclass(kw_only=True, slots=True)
class Draft:
    """A log, as far as it can be told."""

    data: Path
    """The folder or file of the events, for --data."""
    events: LookedAt
    """Its files of events, with some rows."""
    others: tuple[Path, ...]
    """Files of other formats, which are not read."""
    user: str | None
    """Column; None: no users."""
    item: str
    """Column."""
    item_sure: bool
    """Whether its name says so."""
    time: str
    """Column."""
    clock: Clock
    """How times are written."""
    outcomes: Outcomes
    """Labels; none: the log holds positives only."""
    weight: str | None
    """Column."""
    birth: str | None
    """Column."""
    user_table: TableDraft | None = None
    item_table: TableDraft | None = None
    user_inputs: list[Found] = field(default_factory=list)
    item_inputs: list[Found] = field(default_factory=list)
    context: list[Found] = field(default_factory=list)
    lacking: dict[str, Path] = field(default_factory=dict)
    """Columns that some files of events lack -> the first of these, where `prepare` takes no file without them."""
    left: dict[str, str] = field(default_factory=dict)
    """Columns that are not used, and why."""

    @property
    def items(self) -> list[Found]:
        """What is known of items, of the log or of their table."""
        return self.item_table.inputs if self.item_table else self.item_inputs

    @property
    def users(self) -> list[Found]:
        """What is known of users."""
        return self.user_table.inputs if self.user_table else self.user_inputs

    @property
    def keys(self) -> list[Found]:
        """Features of items whose groups are counted."""
        by_name = {f.name: f for f in self.items}
        return [by_name[n] for n in groups_of(by_name, self.distinct(self.item))]

    def distinct(self, column: str) -> int:
        """How many values a column has in all, about: in the rows that were looked at, as many more as there are more
        rows."""
        seen, rows = self.events.rows[column].n_unique(), len(self.events.rows)
        return min(round(seen * self.events.total / rows), self.events.total)


def draft(data: Path, given: Given) -> Draft:
    """Looks at a log. Raises UserError where it cannot tell what is shown, or when, and says how to name it."""
    found = parts(data, given.header)
    _check_given(found, given)
    main = next((p for p in found if _roles(p.rows, given) is not None), None)
    if main is None:
        rows = found[0].rows
        _check_time(found, given.time)
        wanted = "item" if (given.time or find_time(rows, set())) else "time"
        raise UserError(
            f"{found[0].files[0]}: which column is the {wanted}? --{wanted} COLUMN, one of {_some(rows.columns)}"
        )
    user, item, item_sure, time, how = _roles(main.rows, given)  # type: ignore[misc]
    taken = {item, time} | ({user} if user else set())
    labels = _labels(main.rows, taken, given, [o for o in (user, item) if o])
    if not labels and (odd := odd_outcome(main.rows, taken)):
        raise UserError(
            f"{main.files[0]}: {odd}; should be 0 and 1, and no other column is an outcome; --label COLUMN if one is"
        )
    weight = find_weight(main.rows, taken | labels.sources)
    taken |= labels.sources | ({weight} if weight else set())
    same = [p for p in found if p is not main and taken <= set(p.rows.columns)]
    made = Draft(
        data=data,
        events=_together([main, *same]),
        others=(),
        user=user,
        item=item,
        item_sure=item_sure,
        time=time,
        clock=how,
        outcomes=labels,
        weight=weight,
        birth=find_birth(main.rows, taken, item),
        lacking=_lacking([main, *same]),
    )
    rest = [p for p in found if p is not main and p not in same]
    root = data if data.is_dir() else data.parent
    for side in ("item", "user"):
        rest = _take_table(side, rest, root, made)
    _settle_rest(made, rest, data)
    _inputs(made, taken)
    return made


def _roles(rows: pl.DataFrame, given: Given) -> tuple[str | None, str, bool, str, Clock] | None:
    """User, item, whether its name says so, time, and how it is written; None: no events."""
    if not {n for n in (given.user, given.item, given.time, *given.labels) if n} <= set(rows.columns):
        return None
    user = given.user or None
    taken = {n for n in (given.user, given.item, given.time, *given.labels) if n}
    if given.time:
        how = clock(rows[given.time])
        when = (given.time, how) if how else None
    else:
        when = find_time(rows, taken)
    if when is None:
        return None
    taken.add(when[0])
    if given.user is None:
        user = find_id(rows, names.USER, taken)
        taken |= {user} if user else set()
    item = given.item or find_id(rows, names.ITEM, taken)
    sure = item is not None
    item = item or likely_item(rows, taken)
    return None if item is None else (user, item, sure, *when)


def _check_given(found: Sequence[LookedAt], given: Given) -> None:
    options = [("user", given.user), ("item", given.item), ("time", given.time), *(("label", n) for n in given.labels)]
    for option, name in options:
        if name and not any(name in part.rows.columns for part in found):
            raise UserError(f"--{option} {name}: no such column; there are {_some(found[0].rows.columns)}")


def _check_time(found: Sequence[LookedAt], name: str | None) -> None:
    """Raises UserError for a column, said to be the time, of whose values no layout reads all."""
    part = next((p for p in found if name in p.rows.columns), None)
    if name is None or part is None or clock(part.rows[name]):
        return
    values = part.rows[name].drop_nulls()
    some = ", ".join(repr(v) for v in (values.min(), values.max()) if v is not None)
    raise UserError(
        f"{part.files[0]}: --time {name}: from {some}: no times of 1990 to 2035 that are all written alike; mend or"
        " remove the odd ones, or write spec.py by hand"
    )


def _labels(rows: pl.DataFrame, taken: set[str], given: Given, owners: Sequence[str]) -> Outcomes:
    # A number that is the same in all events of an item, such as its mean rating, is no outcome of an event.
    numbers = [n for n in rows.columns if n not in taken and rows[n].dtype.is_numeric() and rows[n].n_unique() > 2]
    taken = taken | {n for n in numbers if n not in given.labels and any(owned(rows, o, n) for o in owners)}
    if not given.labels:
        return outcomes(rows, taken)
    beside = outcomes(rows, taken | set(given.labels)).numbers
    return Outcomes(flags={names.plain_name(n, "is"): n for n in given.labels}, numbers=beside)


def _together(of: Sequence[LookedAt]) -> LookedAt:
    """Files of events whose columns differ."""
    first = of[0]
    if len(of) == 1:
        return first
    try:
        rows = pl.concat([p.rows for p in of], how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{of[1].files[0]}: its columns are of other types: {str(error).splitlines()[0]}") from None
    nulls = tuple(sorted({n for p in of for n in p.reading.null_values}))
    reading = replace(first.reading, null_values=nulls)
    unclear = tuple(dict.fromkeys(n for p in of for n in p.unclear))
    files = tuple(f for p in of for f in p.files)
    return replace(first, files=files, rows=rows, total=sum(p.total for p in of), reading=reading, unclear=unclear)


def _lacking(of: Sequence[LookedAt]) -> dict[str, Path]:
    """Columns that some files lack, and the first file that does; of JSON lines none, where what lacks is null."""
    names = dict.fromkeys(n for p in of for n in p.rows.columns)
    without = {n: [p for p in of if n not in p.rows.columns and p.kind != "jsonl"] for n in names}
    return {n: min(f for p in parts for f in p.files) for n, parts in without.items() if parts}


def _take_table(side: str, rest: list[LookedAt], root: Path, made: Draft) -> list[LookedAt]:
    """Takes the files that are the table of users (items), the ones that say most; returns the others."""
    column = made.item if side == "item" else made.user
    if column is None:
        return rest
    # All files of text have one separator and one decimal sign.
    kinds = {"csv", made.events.kind}
    ways = [(p.reading.separator, p.reading.decimal) for p in (made.events, *rest)]
    fits = [p.kind not in kinds or way == ways[0] for p, way in zip(rest, ways[1:], strict=True)]
    tables = {n: t for n, p in enumerate(rest) if fits[n] and (t := _table(side, column, p, root))}
    if not tables:
        return rest
    best = max(tables, key=lambda n: len(tables[n].inputs))
    setattr(made, f"{side}_table", tables[best])
    return [part for n, part in enumerate(rest) if n != best]


def _table(side: str, column: str, part: LookedAt, root: Path) -> TableDraft | None:
    """Files as a table, if they are one: an id, once each, in a place that a spec can name."""
    key = (
        column
        if column in part.rows.columns
        else find_id(part.rows, names.ITEM if side == "item" else names.USER, set())
    )
    if key is None or part.rows[key].null_count() or part.rows[key].n_unique() < len(part.rows):
        return None
    folder = part.files[0].parent
    one = len(part.files) == 1
    path = part.files[0] if one else folder
    if not path.is_relative_to(root) or not (one or (folder != root and all(f.parent == folder for f in part.files))):
        return None
    found, left = inputs(part.rows, {key}, side)
    born = find_birth(part.rows, {key}, key, whole=True) if side == "item" else None
    if born:
        left.pop(born, None)
    found = [f for f in found if f.source != born]
    return TableDraft(
        path=str(path.relative_to(root)),
        rows=part.rows,
        total=part.total,
        null_values=part.reading.null_values,
        key=key,
        inputs=found,
        left=left,
        birth=born,
    )


def _settle_rest(made: Draft, rest: list[LookedAt], data: Path) -> None:
    """What becomes of files that are neither events nor a table: they must not be read as events."""
    if not rest or data.is_file():
        return
    kinds = {made.events.kind}
    mixed = [p for p in rest if p.kind in kinds]
    if not mixed:
        made.others = tuple(f for p in rest for f in p.files)
        return
    if len(made.events.files) == 1 and not _below(made, data):
        made.data = made.events.files[0]
        made.others = tuple(f for p in rest for f in p.files)
        return
    raise UserError(
        f"{mixed[0].files[0]}: has other columns than the events in {made.events.files[0]}, and is no table of users or"
        f" items, once each; move it out of {data}"
    )


def _below(made: Draft, data: Path) -> bool:
    """Whether the events lie deeper than their folder, where a table's path would not be found."""
    return made.events.files[0].parent != data and bool(made.user_table or made.item_table)


def _inputs(made: Draft, taken: set[str]) -> None:
    """Whose each other column of the events is."""
    rows = made.events.rows
    held = {
        f"{side}_{f.name}"
        for side, table in (("user", made.user_table), ("item", made.item_table))
        if table
        for f in table.inputs
    }
    taken = taken | ({made.birth} if made.birth else set())
    found, made.left = inputs(rows, taken | {*made.lacking, *made.events.unclear})
    made.left |= dict.fromkeys(made.events.unclear, "numbers, and what is none: should all be written alike")
    made.left |= {n: f"{path} and others lack it; name it when all files have it" for n, path in made.lacking.items()}
    used: set[str] = set()
    for column in found:
        side = _side(made, column.source)
        if not side and (why := tells(rows, column.source, made.outcomes)):
            made.left[column.source] = why
            continue
        name = names.plain_name(column.source, side) if side else column.name
        whole = f"{side}_{name}" if side else name
        if whole in used | held or _TAKEN.fullmatch(whole):
            made.left[column.source] = f"its name would be {whole}, which is taken"
            continue
        used.add(whole)
        into = {"user": made.user_inputs, "item": made.item_inputs, "": made.context}[side]
        into.append(replace(column, name=name))


def _side(made: Draft, column: str) -> str:
    """Whose a column is: user, item, or empty: the event's. By its values, where there is no table that says it."""
    rows = made.events.rows
    said = names.words(column)[:1]
    for side, owner, table in (("user", made.user, made.user_table), ("item", made.item, made.item_table)):
        if owner and table is None and said == (side,) and owned(rows, owner, column):
            return side
    for side, owner, table in (("item", made.item, made.item_table), ("user", made.user, made.user_table)):
        if owner and table is None and owned(rows, owner, column):
            return side
    return ""


def _some(columns: Sequence[str]) -> str:
    return ", ".join(columns[:_NAMED]) + (f" and {len(columns) - _NAMED} more" if len(columns) > _NAMED else "")
