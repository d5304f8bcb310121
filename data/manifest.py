"""`manifest.json` of a prepared data folder: the schema, the splits, the partitions and the counts."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coldrank.data.ids import as_column
from coldrank.data.log import SAMPLED, EventLog, LogSpec
from coldrank.data.partitions import LabelCounts, Partition
from coldrank.data.read_manifest import FORMAT
from coldrank.data.samples import ITEM_HISTORY
from coldrank.data.split import SPLITS
from coldrank.data.times import DayTimes, Span, as_date
from coldrank.data.weighted import SUFFIX
from coldrank.data.whole import Whole

Int64s = NDArray[np.int64]

_MEANINGS = {
    "user_id": "user",
    "item_id": "item",
    "time": "time of the event, milliseconds since the epoch",
    "user_views": "events of the user before (accumulated view count)",
    "item_views": "events of the item before",
    "item_age_h": "hours since the item's birth; if that is unknown, since its first event before (null: none)",
    SAMPLED: "1: a sampled negative, no event of the log",
    "user_gap_h": "hours since the user's last event before (null: none)",
    "hist_item_id": "items of the user's last events before, most recent first",
    ITEM_HISTORY: "users of the item's last events before, most recent first",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Population:
    """How many users, or items, a log has."""

    ids: int
    """They."""
    events: int
    """Their events."""
    in_table: int
    """Those with a row in their table; 0 where there is none."""
    events_in_table: int
    """The events of those."""

    @classmethod
    def of(cls, ids: Int64s, events: Int64s, table: Int64s) -> "Population":
        """ids: each once, int64 [U]. events: of each, int64 [U]. table: the ids of their table."""
        known = np.isin(ids, table)
        return cls(
            ids=len(ids),
            events=int(events.sum()),
            in_table=int(known.sum()),
            events_in_table=int(events[known].sum()),
        )

    def __add__(self, other: "Population") -> "Population":
        """Of ids that are all others."""
        return Population(**{n: getattr(self, n) + getattr(other, n) for n in self.__slots__})


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What a prepared folder holds."""

    whole: Whole
    """The log."""
    schema: pa.Schema
    """The columns of the samples."""
    partitions: list[Partition]
    """The files of samples, by split and time."""
    labels: dict[str, LabelCounts]
    """Path of a partition -> its labels."""
    users: Population
    """Its users."""
    items: Population
    """Its items."""
    fewer: int = 0
    """Events that got fewer negatives than was asked for."""

    def of_split(self, split: str) -> LabelCounts:
        """The labels of a split."""
        return LabelCounts.total(self.labels[p.path] for p in self.partitions if p.split == split)


def manifest(
    log: EventLog, arguments: dict[str, Any], content: Content, history: int, lengths: Mapping[str, int]
) -> dict[str, Any]:
    """Everything that a reader needs to know without opening a Parquet file. lengths: of the vectors."""
    spec, whole, partitions = log.spec, content.whole, content.partitions
    lists = ["hist_item_id", *(f"hist_{n}" for n in (*spec.history, *spec.history_numbers, *spec.all_signals()))]
    return {
        "format": FORMAT,
        "source": log.source,
        "created_by": f"coldrank {importlib.metadata.version('coldrank')}",
        "arguments": arguments,
        "columns": [
            {"name": f.name, "type": type_name(f.type), "nullable": f.nullable, "meaning": _meaning(f.name, spec)}
            | ({"length": lengths[f.name]} if f.name in lengths else {})
            for f in content.schema
        ],
        "tasks": list(spec.labels()),
        "labels": spec.labels(),
        "weight": "" if spec.weight is None else "weight",
        "negatives": None if spec.negatives is None else asdict(spec.negatives) | {"column": SAMPLED},
        "signals": list(spec.all_signals()),
        "groups": [
            {
                "name": g.name,
                "keys": list(g.keys),
                "parent": g.parent,
                "smoothing": g.smoothing,
                "refresh_h": spec.refresh_h if g.refresh_h is None else g.refresh_h,
            }
            for g in spec.all_groups()
        ],
        "refresh_h": spec.refresh_h,
        "known_after": {s: after if isinstance(after, int | float) else "by event" for s, after in _delays(spec)},
        "history": {"length": history, "columns": lists},
        "histories": {n: asdict(h) for n, h in spec.histories.items()},
        "splits": {
            s: _split([p for p in partitions if p.split == s])
            | ({} if spec.negatives is None else {"negatives": content.of_split(s).sampled})
            for s in SPLITS
        },
        "partitions": [asdict(p) for p in partitions],
        "counts": {"files_read": len(log.files), "days_read": len(whole.days.days)} | _counts(log, content),
        "left_out": [asdict(left) for left in log.left_out],
        "span": _span(whole.days),
        "duplicates_share": whole.duplicates / whole.events_read,
        "joined": _joined(log, content),
        "label_rates": {s: _label_rates(content.of_split(s), spec) for s in SPLITS},
    }


def _delays(spec: LogSpec) -> list[tuple[str, Any]]:
    """Every signal, and after how many seconds its outcome is known."""
    return [(s, spec.known_after.get(s, 0)) for s in spec.all_signals()]


def type_name(kind: pa.DataType) -> str:
    """int64, float32, list<int64>, ..."""
    if pa.types.is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    return {"float": "float32"}.get(str(kind), str(kind))


def _split(partitions: list[Partition]) -> dict[str, Any]:
    return {
        "rows": sum(p.rows for p in partitions),
        "time_min": min((p.time_min for p in partitions), default=None),
        "time_max": max((p.time_max for p in partitions), default=None),
        "periods": [p.period for p in partitions],
    }


def _counts(log: EventLog, content: Content) -> dict[str, int]:
    whole = content.whole
    counts = {
        "events_read": whole.events_read,
        "duplicates": whole.duplicates,
        "duplicates_dropped": whole.events_read - whole.events,
        "users": content.users.ids,
        "items": content.items.ids,
    }
    if log.spec.user is None or log.spec.anonymous == "own":
        counts["anonymous_events"] = whole.anonymous
    if log.spec.negatives is not None:
        counts["negatives"] = LabelCounts.total(content.labels.values()).sampled
        counts["events_with_fewer_negatives"] = content.fewer
    for name, met in _with_tables(log, content).items():
        counts[f"{name}_without_features"] = met.ids - met.in_table
    return counts


def _span(days: DayTimes) -> dict[str, Any]:
    """The log's days; those that lie apart are named, and are not in the first and last."""
    span = Span.from_rows(days.days, days.rows)
    apart = {as_date(d).isoformat(): int(n) for d, n in zip(span.days[span.apart], span.rows[span.apart], strict=True)}
    return {"first_day": span.first.isoformat(), "last_day": span.last.isoformat(), "days_apart": apart}


def _with_tables(log: EventLog, content: Content) -> dict[str, Population]:
    """Those that have a table."""
    tables = (("users", log.users, content.users), ("items", log.items, content.items))
    return {name: met for name, table, met in tables if table is not None}


def table_ids(log: EventLog, key: str) -> Int64s:
    """The ids of the table of users or items, int64; none where there is no table. key: user or item."""
    table = log.users if key == "user" else log.items
    return np.empty(0, np.int64) if table is None else as_column(table[f"{key}_id"], f"{key}s").to_numpy()


def _joined(log: EventLog, content: Content) -> dict[str, dict[str, float]]:
    """Of each table: the share of the log's ids that have a row in it, and of the events."""
    return {
        name: {"ids_share": met.in_table / met.ids, "events_share": met.events_in_table / met.events}
        for name, met in _with_tables(log, content).items()
        if met.ids  # all users may be anonymous
    }


def _label_rates(counts: LabelCounts, spec: LogSpec) -> dict[str, dict[str, float | int | None]]:
    """Of a label of 0 and 1 its rate, of a number or level its mean."""
    rates: dict[str, dict[str, float | int | None]] = {}
    for task, kind in spec.labels().items():
        known = counts.known.get(task, 0)
        mean = counts.sums[task] / known if known else None
        rates[task] = {"known": known, "rate" if kind == "flag" else "mean": mean}
    return rates


def _described(spec: LogSpec) -> set[str]:
    """Columns of context and features."""
    return {*spec.context, *(f"user_{n}" for n in spec.user_features), *(f"item_{n}" for n in spec.item_features)}


def _meaning(name: str, spec: LogSpec) -> str:
    if name == "weight" and spec.weight is not None:
        return "weight of the sample in the loss; never a feature"
    if text := spec.meanings.get(name, _MEANINGS.get(name)):
        return text
    for group in spec.all_groups():
        keys = " and the same ".join(group.keys)
        if name == f"views_{group.name}":
            return f"events of the same {keys} before"
        for signal in spec.all_signals():
            if name == f"rate_{group.name}_{signal}":
                prior = f"the rate by {group.parent}" if group.parent else "the rate of the whole log"
                return f"share of {signal} before, by {keys}, smoothed by {group.smoothing:g} events at {prior}"
    for history, of in spec.histories.items():
        for column in of.columns:
            if name == f"hist_{history}_{column}":
                events = f"events with {of.where}" if of.where else "events"
                shown = "hours since each" if column == "hours" else f"{column} of each"
                return f"the user's last {of.length} {events} before, most recent first: {shown}"
    if name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in _described(spec):
        return f"weights of {name.removesuffix(SUFFIX)}, one for each"
    prefix, _, rest = name.partition("_")
    if prefix == "hist":
        kind = "1, 0 or -1 (unknown)" if rest in spec.all_signals() else "-1: unknown"
        kind = "null: unknown" if rest in spec.history_numbers else kind
        return f"{rest} of the user's last events before, most recent first ({kind})"
    outcomes = {"flag": "1, 0", "number": "a number", "level": "a level"}
    if prefix == "label" and rest in spec.labels():
        return f"outcome: {outcomes[spec.labels()[rest]]} or null (unknown)"
    known = {"true": "true probability (simulated log); never a feature"}
    if prefix in ("user", "item"):
        return f"feature of the {prefix}: {rest}"
    return known.get(prefix, "context of the event")
