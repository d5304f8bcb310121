"""How an event log is described: which columns or expressions give users, items, times, labels, features and groups."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl
import polars.selectors as cs

from coldrank.data.errors import UserError
from coldrank.data.folder import LeftOut

# The name of a column, or a polars expression over columns.
Column = str | pl.Expr


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Events that are counted together: those with equal values of all keys.

    keys: names from `LogSpec.keys`, or "user" and "item". The group is named by its keys: user_x_author.
    parent: the group whose smoothed rate is the prior of this one's; None: the rate of the whole log.
    smoothing: weight of the prior, in events.
    """

    keys: tuple[str, ...]
    parent: str | None = None
    smoothing: float = 10.0

    @property
    def name(self) -> str:
        return "_x_".join(self.keys)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LogSpec:
    """An event log. Every column is given by its name or by a polars expression.

    Expressions over events see the log's columns and those of the user and item tables (`user_<x>`, `item_<x>`). They read their
    own row alone: a mean or a shift would know the future, and is refused.

    user, item: integers or strings (strings become ids, see `ids.string_id`).
    time: integer in `time_unit` since the epoch, or a datetime.
    tasks: name -> 0, 1 or null (unknown); becomes `label_<task>`.
    signals: name -> 0, 1 or null: outcomes that are counted into rates and shown in histories; default: the tasks.
    keys: name -> value of an event, for the groups; null: the event belongs to no such group.
    groups: beyond user and item, which every log has unless declared here with other settings.
    history: name -> integer or string of a past event; becomes `hist_<name>` (-1: unknown).
    context: name -> what is known of an event before its outcome, written under its own name.
    user_features, item_features: name -> column or expression of the user or item table, or of the log where there is
        no table; becomes `user_<name>`, `item_<name>`.
    user_table, item_table: Parquet or CSV files in the data folder; user_table_id, item_table_id: their id columns.
    item_birth: datetime, or milliseconds since the epoch, at which the item appeared.
    day: date of the event in the log's own days; default: the day of `time` at `utc_offset_h`.
    period: length of a partition.
    truth: task -> true probability, in a simulated log; becomes `true_<task>`, which is never a feature.
    meanings: column of the samples -> one line for the manifest.
    """

    user: Column
    item: Column
    time: Column
    time_unit: Literal["s", "ms", "us", "ns"] = "ms"
    tasks: Mapping[str, Column]
    signals: Mapping[str, Column] | None = None
    keys: Mapping[str, Column] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    history: Mapping[str, Column] = field(default_factory=dict)
    context: Mapping[str, Column] = field(default_factory=dict)
    user_features: Mapping[str, Column] = field(default_factory=dict)
    item_features: Mapping[str, Column] = field(default_factory=dict)
    user_table: str | None = None
    item_table: str | None = None
    user_table_id: str = "user_id"
    item_table_id: str = "item_id"
    item_birth: Column | None = None
    day: Column | None = None
    utc_offset_h: float = 0.0
    period: Literal["day", "month"] = "day"
    truth: Mapping[str, Column] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)

    def all_signals(self) -> Mapping[str, Column]:
        return self.tasks if self.signals is None else self.signals

    def all_groups(self) -> tuple[Group, ...]:
        """The declared groups, with user and item, parents before children."""
        named = {g.name: g for g in (Group(keys=("user",)), Group(keys=("item",)), *self.groups)}
        ordered: dict[str, Group] = {}
        while len(ordered) < len(named):
            ready = [g for n, g in named.items() if n not in ordered and (g.parent is None or g.parent in ordered)]
            if not ready:
                stuck = next(g for n, g in named.items() if n not in ordered)
                raise UserError(
                    f"spec: group {stuck.name!r}: parent {stuck.parent!r} is no group, or its own descendant;"
                    f" groups are {', '.join(named)}"
                )
            ordered |= {g.name: g for g in ready}
        return tuple(ordered.values())


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file of events. frame: its rows, lazily. explain: turns a failed read into a UserError with column and row.

    empty: whether it has no row.
    """

    path: Path
    frame: pl.LazyFrame
    explain: Callable[[Exception], UserError]
    empty: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class EventLog:
    """A log, ready to be prepared.

    users, items: one row per id, with columns `user_id` and `user_<x>` (`item_id` and `item_<x>`), which go into the
    samples; other columns serve the spec's expressions only. left_out: what of the log's folder was not read.
    """

    source: str
    spec: LogSpec
    files: tuple[LogFile, ...]
    users: pl.DataFrame | None = None
    items: pl.DataFrame | None = None
    left_out: tuple[LeftOut, ...] = ()


def expression(column: Column) -> pl.Expr:
    """pl.col would take `*` and `^a.*$` for patterns."""
    return cs.by_name(column).as_expr() if isinstance(column, str) else column


def check_spec(spec: LogSpec) -> None:
    """Raises UserError that names the field, the value and what would be right."""
    if not spec.tasks:
        raise UserError("spec: tasks is empty; should name at least one label")
    if not -12 <= spec.utc_offset_h <= 14:
        raise UserError(f"spec: utc_offset_h={spec.utc_offset_h}; should be hours, -12 to 14")
    for group in spec.all_groups():
        for key in group.keys:
            if key not in ("user", "item") and key not in spec.keys:
                raise UserError(
                    f"spec: group {group.name!r}: key {key!r} is not in keys ({', '.join(spec.keys) or 'empty'})"
                )
        if group.smoothing <= 0:
            raise UserError(f"spec: group {group.name!r}: smoothing={group.smoothing}; should be above 0")
    for name, allowed in (("keys", {"user", "item"}), ("history", {"item_id", *spec.all_signals()})):
        if clash := allowed & set(getattr(spec, name)):
            raise UserError(f"spec: {name}: {min(clash)!r} is taken; choose another name")
    for task in spec.truth:
        if task not in spec.tasks:
            raise UserError(f"spec: truth: {task!r} is no task; tasks are {', '.join(spec.tasks)}")
    fields = ("tasks", "keys", "history", "context", "user_features", "item_features", "truth")
    _check_names([(f, n) for f in fields for n in getattr(spec, f)] + [("signals", n) for n in spec.all_signals()])


def _check_names(names: Iterable[tuple[str, str]]) -> None:
    for where, name in names:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise UserError(f"spec: {where}: name {name!r}; should be lower-case letters, digits and underscores")
