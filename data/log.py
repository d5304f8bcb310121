"""How an event log is described: which columns or expressions give users, items, times, labels, features and groups."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl
import polars.selectors as cs

from coldrank.data.clock import check_zone
from coldrank.data.errors import UserError
from coldrank.data.folder import LeftOut
from coldrank.data.text.file import TextFile, TextKind

# The name of a column, or a polars expression over columns.
Column = str | pl.Expr
# What a label is: 0 or 1; a number; a whole number.
LabelKind = Literal["flag", "number", "level"]
# What a file of events is.
Format = Literal["parquet"] | TextKind
_OF_USERS = ("user_table", "user_features")
FORMATS: tuple[Format, ...] = ("parquet", "csv", "tsv", "jsonl")
# Column that is 1 in samples of negatives.
SAMPLED = "sampled"
# Of a delay.
LONGEST_S = 10 * 366 * 86_400


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Events that are counted together: those with equal values of all keys."""

    keys: tuple[str, ...]
    """Names from `LogSpec.keys`, or "user" and "item"."""
    parent: str | None = None
    """The group whose smoothed rate is the prior of this one's; None: the rate of the whole log."""
    smoothing: float = 10.0
    """Weight of the prior, in events."""
    refresh_h: float | None = None
    """Hours from one refresh of what is known of the groups to the next, from midnight at `utc_offset_h`; 0: with
    every event. None: as `LogSpec.refresh_h`."""

    @property
    def name(self) -> str:
        """By its keys: user_x_author."""
        return "_x_".join(self.keys)


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """A history of a user beside that of all events, such as of clicks alone."""

    length: int
    """Longest, in events."""
    where: str | None = None
    """The signal that is 1 in its events, from when on it is known; they come in the order in which it became known.
    None: all events."""
    columns: tuple[str, ...] = ("item_id",)
    """What it shows of each: `item_id`, names from `LogSpec.history` and `history_numbers`, signals, and `hours`, the
    time since."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Negatives:
    """Items that are sampled beside those that users met, for a log that holds positives alone."""

    per_positive: int = 4
    """How many for each event; fewer where fewer items are there."""
    draw: Literal["uniform", "popularity"] = "uniform"
    """uniform: all items alike. popularity: by the item's events before the hour, to a power."""
    power: float = 1.0
    """Of popularity, above 0 and at most 1."""
    of: str | None = None
    """The task or signal that is 1 in the events that get some; None: all events."""
    seen: Literal["may", "never"] = "may"
    """Whether an item that the user had before may be drawn. never takes a group of the keys user and item."""
    keys: Mapping[str, Literal["item", "event"]] = field(default_factory=dict)
    """Of each of `LogSpec.keys` that reads columns of the log: whose it is. item: as in the last event of the item
    that is drawn; event: of the event, whatever its item."""
    seed: int = 1
    """Other draws by another."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LogSpec:
    """An event log. Every column is given by its name or by a polars expression.

    Expressions over events see the log's columns and those of the user and item tables (`user_<x>`, `item_<x>`). They
    read their own row alone: a mean or a shift would know the future, and is refused.
    """

    user: Column | None
    """Integers or strings; strings become ids, see `ids.string_id`. None: all events are anonymous."""
    item: Column
    """Like `user`."""
    time: Column
    """Numbers in `time_unit` since the epoch, datetimes, or text: ISO 8601, or as `time_format` says."""
    anonymous: Literal["refuse", "own"] = "refuse"
    """What an event is whose user is null or the empty text. own: the only one of a user that nobody else meets."""
    time_unit: Literal["s", "ms", "us", "ns"] = "ms"
    """The unit of a time that is a number."""
    time_format: str | None = None
    """How a time is written that is text, or digits like 20220504: `%d.%m.%Y %H:%M:%S`, as strftime has it."""
    tasks: Mapping[str, Column] = field(default_factory=dict)
    """Name -> 0, 1 or null (unknown); becomes `label_<name>`, for a head `Binary`."""
    numbers: Mapping[str, Column] = field(default_factory=dict)
    """Name -> a number or null (unknown), such as seconds watched; becomes `label_<name>`, for a head `Regression`."""
    levels: Mapping[str, Column] = field(default_factory=dict)
    """Name -> a whole number or null (unknown), such as stars; becomes `label_<name>`, for a head `Ordinal`."""
    weight: Column | None = None
    """A number not below 0, of every event: becomes `weight`, of the sample in the loss where a run says so
    (`data.weight_column=weight`); None: no such column."""
    signals: Mapping[str, Column] | None = None
    """Name -> 0, 1 or null: outcomes that are counted into rates and shown in histories; None: the tasks."""
    keys: Mapping[str, Column] = field(default_factory=dict)
    """Name -> value of an event, for the groups; null: the event belongs to no such group."""
    groups: tuple[Group, ...] = ()
    """Groups beyond user and item. Every log has those two; declare one here to change its settings."""
    history: Mapping[str, Column] = field(default_factory=dict)
    """Name -> integer or string of a past event; becomes `hist_<name>` (-1: unknown)."""
    history_numbers: Mapping[str, Column] = field(default_factory=dict)
    """Name -> a number of a past event, such as its price; becomes `hist_<name>` (null: unknown). Known with the event:
    an outcome that takes its time is a signal."""
    histories: Mapping[str, History] = field(default_factory=dict)
    """Name -> a history of its own; its columns become `hist_<name>_<column>`, most recent first."""
    known_after: Mapping[str, float | Column] = field(default_factory=dict)
    """Signal -> seconds from the event's time until its outcome is known: a number, or a column or expression (never
    empty). Before, rates and histories hold it for unknown. A signal that is not here is known at any later time."""
    refresh_h: float = 0.0
    """Hours from one refresh of counters, rates and histories to the next, from midnight at `utc_offset_h` (of
    UTC, where there is a `time_zone`): a sample sees what was known before the last. 0: what was known before its
    time."""
    context: Mapping[str, Column] = field(default_factory=dict)
    """Name -> what is known of an event before its outcome; written under its own name."""
    user_features: Mapping[str, Column] = field(default_factory=dict)
    """Name -> column or expression of the user table, or of the log where there is none; becomes `user_<name>`."""
    item_features: Mapping[str, Column] = field(default_factory=dict)
    """The same of the item table; becomes `item_<name>`."""
    user_table: str | None = None
    """A file in the data folder, or a folder of files, of any of the formats."""
    item_table: str | None = None
    """Like `user_table`."""
    user_table_id: str = "user_id"
    """The id column of `user_table`."""
    item_table_id: str = "item_id"
    """The id column of `item_table`."""
    item_birth: Column | None = None
    """Datetime, text of ISO 8601, or milliseconds since the epoch, at which the item appeared."""
    day: Column | None = None
    """Date, or text like 2022-05-04, of the event in the log's own days; None: the day of `time`, by zone or offset."""
    utc_offset_h: float = 0.0
    """Hours from UTC to the log's own days."""
    time_zone: str | None = None
    """The zone of times that say none, like America/New_York, and of the log's own days; None: UTC."""
    period: Literal["day", "month"] = "day"
    """Length of a partition."""
    negatives: Negatives | None = None
    """Items to be sampled beside those of the events; None: none, as where the log says what was shown."""
    truth: Mapping[str, Column] = field(default_factory=dict)
    """Task -> true probability, in a simulated log; becomes `true_<task>`, which is never a feature."""
    formats: tuple[Format, ...] = ()
    """What files are events: parquet, csv, tsv, jsonl. Empty: of whatever format they are, if they are of one."""
    separator: str | None = None
    """Between two fields of CSV and TSV, one character; None: a comma, a tab."""
    quote: str = '"'
    """What fields of CSV and TSV stand in that hold separators or line breaks; empty: nothing."""
    header: tuple[str, ...] = ()
    """The columns of CSV and TSV files without a header; empty: their first line names them."""
    null_values: tuple[str, ...] = ()
    """What means null in CSV and TSV, such as NA, beside a field without a character."""
    decimal: Literal[".", ","] = "."
    """What stands before the fraction of a number in CSV and TSV. With a comma `1.5` is no number."""
    meanings: Mapping[str, str] = field(default_factory=dict)
    """Column of the samples -> one line for the manifest."""

    def labels(self) -> "dict[str, LabelKind]":
        """Task -> the kind of its label: tasks, numbers, levels."""
        kinds: dict[str, LabelKind] = dict.fromkeys(self.tasks, "flag")
        return kinds | dict.fromkeys(self.numbers, "number") | dict.fromkeys(self.levels, "level")

    def all_signals(self) -> Mapping[str, Column]:
        """The declared signals, or the tasks."""
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
    """A file of events."""

    path: Path
    """The file, as errors name it."""
    frame: pl.LazyFrame
    """Its rows."""
    explain: Callable[[Exception], UserError]
    """Turns a failed read into a UserError with column and row."""
    empty: bool = False
    """Whether it has no row."""
    in_rows: bool = False
    """Whether rows from its midst are read without all before them."""
    text: TextFile | None = None
    """What it is if it is text, until `text.settle` has given its columns types: `frame` has none before."""
    folders: Mapping[str, tuple[str | None, pl.Expr]] = field(default_factory=dict)
    """Column that the names of its folders hold -> what they say, and the value. Until they are in the frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EventLog:
    """A log, ready to be prepared."""

    source: str
    """The kind of log: kuairand, movielens or log."""
    spec: LogSpec
    """What its columns mean."""
    files: tuple[LogFile, ...]
    """Its files, none of them empty."""
    users: pl.DataFrame | None = None
    """The user table: one row per id. `user_id` and `user_<x>` go into the samples; others serve expressions only."""
    items: pl.DataFrame | None = None
    """The same of the items: `item_id`, `item_<x>`."""
    left_out: tuple[LeftOut, ...] = ()
    """What of the log's folder was not read."""


def expression(column: Column) -> pl.Expr:
    """A column as an expression; pl.col would take `*` and `^a.*$` for patterns."""
    return cs.by_name(column).as_expr() if isinstance(column, str) else column


def check_spec(spec: LogSpec) -> None:
    """Raises UserError that names the field, the value and what would be right."""
    if not spec.labels():
        raise UserError("spec: tasks, numbers and levels are empty; should name at least one label")
    if not -12 <= spec.utc_offset_h <= 14:
        raise UserError(f"spec: utc_offset_h={spec.utc_offset_h}; should be hours, -12 to 14")
    _check_text(spec)
    if spec.anonymous not in ("refuse", "own"):
        raise UserError(f"spec: anonymous={spec.anonymous!r}; should be 'refuse' or 'own'")
    if spec.user is None and (given := next((n for n in _OF_USERS if getattr(spec, n)), None)):
        raise UserError(f"spec: {given}: has no effect, as user is None")
    if spec.time_zone is not None:
        check_zone(spec.time_zone)
        if spec.utc_offset_h:
            raise UserError(f"spec: utc_offset_h={spec.utc_offset_h:g} beside time_zone={spec.time_zone!r}; give one")
    if spec.time_format is not None and spec.time_unit != "ms":
        raise UserError(f"spec: time_unit={spec.time_unit!r}: has no effect beside time_format")
    for group in spec.all_groups():
        for key in group.keys:
            if key not in ("user", "item") and key not in spec.keys:
                raise UserError(
                    f"spec: group {group.name!r}: key {key!r} is not in keys ({', '.join(spec.keys) or 'empty'})"
                )
        if group.smoothing <= 0:
            raise UserError(f"spec: group {group.name!r}: smoothing={group.smoothing}; should be above 0")
        if group.refresh_h is not None:
            _check_hours(f"group {group.name!r}: refresh_h", group.refresh_h)
    _check_hours("refresh_h", spec.refresh_h)
    for signal, after in spec.known_after.items():
        if signal not in spec.all_signals():
            raise UserError(f"spec: known_after: {signal!r} is no signal; these are {', '.join(spec.all_signals())}")
        if isinstance(after, int | float) and not 0 <= after < LONGEST_S:
            raise UserError(f"spec: known_after: {signal}={after}; should be seconds, 0 to 10 years")
    for name, history in spec.histories.items():
        _check_history(spec, name, history)
    if spec.negatives is not None:
        _check_negatives(spec, spec.negatives)
    taken = {"item_id", "hours", *spec.all_signals()}
    others = (("keys", {"user", "item"}), ("history", taken), ("history_numbers", {*taken, *spec.history}))
    for name, allowed in others:
        if clash := allowed & set(getattr(spec, name)):
            raise UserError(f"spec: {name}: {min(clash)!r} is taken; choose another name")
    if SAMPLED in spec.context:
        raise UserError(f"spec: context: {SAMPLED!r} is taken by negatives; choose another name")
    for one, other in (("tasks", "numbers"), ("tasks", "levels"), ("numbers", "levels")):
        if both := set(getattr(spec, one)) & set(getattr(spec, other)):
            raise UserError(f"spec: {other}: {min(both)!r} is one of {one}, too; a label is of one kind")
    for task in spec.truth:
        if task not in spec.tasks:
            raise UserError(f"spec: truth: {task!r} is no task; tasks are {', '.join(spec.tasks)}")
    fields = (
        "tasks",
        "numbers",
        "levels",
        "keys",
        "history",
        "history_numbers",
        "histories",
        "context",
        "user_features",
        "item_features",
        "truth",
    )
    _check_names([(f, n) for f in fields for n in getattr(spec, f)] + [("signals", n) for n in spec.all_signals()])


def _check_text(spec: LogSpec) -> None:
    if unknown := [f for f in spec.formats if f not in FORMATS]:
        raise UserError(f"spec: formats: {unknown[0]!r} is none; should be among {', '.join(FORMATS)}")
    for name, lengths in (("separator", (1,)), ("quote", (0, 1))):
        text = getattr(spec, name)
        if text is not None and (len(text) not in lengths or text in ("\n", "\r")):
            raise UserError(f"spec: {name}={text!r}; should be one character{' or none' * (0 in lengths)}")
    if spec.decimal not in (".", ","):
        raise UserError(f"spec: decimal={spec.decimal!r}; should be '.' or ','")
    if spec.quote and spec.quote == spec.separator:
        raise UserError(f"spec: quote and separator are both {spec.quote!r}")


def _check_hours(where: str, hours: float) -> None:
    if not (hours == 0 or 1 / 3600 <= hours <= 24 * 366):
        raise UserError(f"spec: {where}={hours}; should be hours: 0 (with every event), or a second to a year")


def _check_history(spec: LogSpec, name: str, history: History) -> None:
    where = f"spec: histories: {name!r}"
    if history.length < 1:
        raise UserError(f"{where}: length={history.length}; should be above 0")
    if history.where is not None and history.where not in spec.all_signals():
        raise UserError(f"{where}: where={history.where!r} is no signal; these are {', '.join(spec.all_signals())}")
    shown = ["item_id", *spec.history, *spec.history_numbers, *spec.all_signals(), "hours"]
    for column in history.columns:
        if column not in shown:
            raise UserError(f"{where}: column {column!r} is unknown; these are {', '.join(shown)}")
    if not history.columns or len(set(history.columns)) < len(history.columns):
        raise UserError(f"{where}: columns={history.columns}; should be some, each once")


def _check_negatives(spec: LogSpec, negatives: Negatives) -> None:
    where = "spec: negatives"
    allowed = {"draw": ("uniform", "popularity"), "seen": ("may", "never")}
    for name, values in allowed.items():
        if (value := getattr(negatives, name)) not in values:
            raise UserError(f"{where}: {name}={value!r}; should be {' or '.join(map(repr, values))}")
    if negatives.per_positive < 1:
        raise UserError(f"{where}: per_positive={negatives.per_positive}; should be above 0")
    if not 0 < negatives.power <= 1:
        raise UserError(f"{where}: power={negatives.power}; should be above 0 and at most 1")
    if negatives.power != 1 and negatives.draw == "uniform":
        raise UserError(f"{where}: power={negatives.power}: has no effect with draw='uniform'")
    if not 0 <= negatives.seed < 2**63:
        raise UserError(f"{where}: seed={negatives.seed}; should be a whole number, 0 to 2^63 - 1")
    if not spec.tasks:
        raise UserError(
            f"{where}: would hold no label, as there is no task: numbers and levels of negatives are unknown"
        )
    of = [*spec.tasks, *spec.all_signals()]
    if negatives.of is not None and negatives.of not in of:
        raise UserError(f"{where}: of={negatives.of!r} is no task or signal; these are {', '.join(dict.fromkeys(of))}")
    if negatives.seen == "never" and not any(sorted(g.keys) == ["item", "user"] for g in spec.groups):
        raise UserError(f"{where}: seen='never' needs Group(keys=('user', 'item')) in groups, which knows it")
    for key, whose in negatives.keys.items():
        if key not in spec.keys:
            raise UserError(f"{where}: keys: {key!r} is not in keys ({', '.join(spec.keys) or 'empty'})")
        if whose not in ("item", "event"):
            raise UserError(f"{where}: keys: {key}={whose!r}; should be 'item' or 'event'")


def _check_names(names: Iterable[tuple[str, str]]) -> None:
    for where, name in names:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise UserError(f"spec: {where}: name {name!r}; should be lower-case letters, digits and underscores")
