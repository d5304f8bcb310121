"""`manifest.json` of a prepared data folder: the schema, the splits, the partitions and the counts."""

import importlib.metadata
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from coldrank.data.events import Events
from coldrank.data.log import EventLog, LogSpec
from coldrank.data.read_manifest import FORMAT
from coldrank.data.samples import ITEM_HISTORY, SampleBuilder
from coldrank.data.split import SPLITS
from coldrank.data.times import Span, as_date

_MEANINGS = {
    "user_id": "user",
    "item_id": "item",
    "time": "time of the event, milliseconds since the epoch",
    "user_views": "events of the user before (accumulated view count)",
    "item_views": "events of the item before",
    "item_age_h": "hours since the item's birth; if that is unknown, since its first event before (null: none)",
    "user_gap_h": "hours since the user's last event before (null: none)",
    "hist_item_id": "items of the user's last events before, most recent first",
    ITEM_HISTORY: "users of the item's last events before, most recent first",
}


@dataclass(frozen=True, slots=True)
class Partition:
    """A Parquet file of samples."""

    path: str
    """Relative to the data folder."""
    split: str
    """One of SPLITS."""
    period: str
    """Name of the day, month or other period."""
    rows: int
    """How many rows the file has."""
    time_min: int
    """Time of its first row, ms since the epoch."""
    time_max: int
    """Time of its last row, ms since the epoch."""


def manifest(
    log: EventLog,
    arguments: dict[str, Any],
    samples: SampleBuilder,
    split: np.ndarray,
    partitions: list[Partition],
    history: int,
) -> dict[str, Any]:
    """Everything that a reader needs to know without opening a Parquet file."""
    events, spec = samples.events, samples.spec
    lists = ["hist_item_id", *(f"hist_{n}" for n in (*events.attributes, *events.signals))]
    return {
        "format": FORMAT,
        "source": log.source,
        "created_by": f"coldrank {importlib.metadata.version('coldrank')}",
        "arguments": arguments,
        "columns": [
            {"name": f.name, "type": type_name(f.type), "nullable": f.nullable, "meaning": _meaning(f.name, spec)}
            for f in samples.schema
        ],
        "tasks": list(spec.labels()),
        "labels": spec.labels(),
        "weight": "" if spec.weight is None else "weight",
        "signals": list(spec.all_signals()),
        "groups": [
            {"name": g.name, "keys": list(g.keys), "parent": g.parent, "smoothing": g.smoothing}
            for g in spec.all_groups()
        ],
        "history": {"length": history, "columns": lists},
        "splits": {s: _split([p for p in partitions if p.split == s]) for s in SPLITS},
        "partitions": [asdict(p) for p in partitions],
        "counts": {"files_read": len(log.files), "days_read": len(np.unique(events.day))} | _counts(samples),
        "left_out": [asdict(left) for left in log.left_out],
        "span": _span(events),
        "duplicates_share": events.duplicates / events.events_read,
        "joined": _joined(samples),
        "label_rates": {s: _label_rates(events, spec, split == i) for i, s in enumerate(SPLITS)},
    }


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


def _counts(samples: SampleBuilder) -> dict[str, int]:
    events = samples.events
    counts = {
        "events_read": events.events_read,
        "duplicates": events.duplicates,
        "duplicates_dropped": events.events_read - len(events.time),
        "users": int(events.codes["user"].max()) + 1,
        "items": int(events.codes["item"].max()) + 1,
    }
    for table, key, name in ((samples.users, "user_id", "users"), (samples.items, "item_id", "items")):
        if table is not None:
            counts[f"{name}_without_features"] = len(np.setdiff1d(events.frame[key], table[key]))
    return counts


def _span(events: Events) -> dict[str, Any]:
    """The log's days; those that lie apart are named, and are not in the first and last."""
    span = Span.from_days(events.day)
    apart = {as_date(d).isoformat(): int(n) for d, n in zip(span.days[span.apart], span.rows[span.apart], strict=True)}
    return {"first_day": span.first.isoformat(), "last_day": span.last.isoformat(), "days_apart": apart}


def _joined(samples: SampleBuilder) -> dict[str, dict[str, float]]:
    """Of each table: the share of the log's ids that have a row in it, and of the events."""
    events, joined = samples.events, {}
    for table, key, name in ((samples.users, "user_id", "users"), (samples.items, "item_id", "items")):
        if table is not None:
            # Codes are in the order of the ids.
            in_table = np.isin(np.unique(events.frame[key]), table[key])
            rows = np.bincount(events.codes[key.removesuffix("_id")])
            joined[name] = {
                "ids_share": float(in_table.mean()),
                "events_share": float(rows[in_table].sum() / rows.sum()),
            }
    return joined


def _label_rates(events: Events, spec: LogSpec, rows: np.ndarray) -> dict[str, dict[str, float | int | None]]:
    """Of a label of 0 and 1 its rate, of a number or level its mean."""
    rates: dict[str, dict[str, float | int | None]] = {}
    for task, kind in spec.labels().items():
        labels = events.frame[f"label_{task}"].filter(rows).drop_nulls().cast(pl.Float64).to_numpy()
        mean = float(labels.mean()) if len(labels) else None
        rates[task] = {"known": len(labels), "rate" if kind == "flag" else "mean": mean}
    return rates


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
    prefix, _, rest = name.partition("_")
    if prefix == "hist":
        kind = "1, 0 or -1 (unknown)" if rest in spec.all_signals() else "-1: unknown"
        return f"{rest} of the user's last events before, most recent first ({kind})"
    outcomes = {"flag": "1, 0", "number": "a number", "level": "a level"}
    if prefix == "label" and rest in spec.labels():
        return f"outcome: {outcomes[spec.labels()[rest]]} or null (unknown)"
    known = {"true": "true probability (simulated log); never a feature"}
    if prefix in ("user", "item"):
        return f"feature of the {prefix}: {rest}"
    return known.get(prefix, "context of the event")
