"""Small random event logs, and the samples that `prepare` makes of them."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from coldrank.data.log import EventLog, Group, LogSpec
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, prepare
from coldrank.data.split import split_by_time

DAY_MS = 86_400_000
START = 1_650_000_000_000 // DAY_MS * DAY_MS
SPEC = LogSpec(
    user="user",
    item="item",
    time="time",
    tasks={"click": "click"},
    signals={"click": "click", "like": "like"},
    keys={"author": "author", "tag": "tag"},
    groups=(
        Group(keys=("author",), smoothing=3.0),
        Group(keys=("item",), parent="author", smoothing=5.0),
        Group(keys=("user", "author"), parent="user"),
        Group(keys=("user", "tag"), parent="user_x_author"),
    ),
    history={"author": "author"},
    context={"place": "tag"},
    item_birth="birth",
)
GROUPS = list(SPEC.all_groups())


def random_log(seed: int, rows: int = 160) -> pl.DataFrame:
    """Few users, items and times, so that ties abound; unknown signals, authors and births."""
    rng = np.random.default_rng(seed)

    def some(values: np.ndarray, unknown: float) -> list[int | None]:
        return [None if gone else int(v) for v, gone in zip(values, rng.random(rows) < unknown, strict=True)]

    item = rng.integers(0, 9, rows)
    return pl.DataFrame(
        {
            "user": rng.integers(0, 6, rows) * 1000 - 2000,
            "item": item,
            "time": START + rng.integers(0, 5, rows) * DAY_MS + rng.integers(0, 8, rows) * 7_000_000,
            "click": some(rng.integers(0, 2, rows), 0.2),
            "like": some(rng.random(rows) < 0.2, 0.5),
            "author": [None if i == 3 else int(i) // 2 for i in item],
            "tag": [("news", "café", None)[t] for t in rng.integers(0, 3, rows)],
            "birth": [None if i % 2 else START - 3_600_000 * int(i) + DAY_MS for i in item],
        }
    )


def prepare_frame(frame: pl.DataFrame, folder: Path, spec: LogSpec = SPEC, history: int = 4) -> dict[str, Any]:
    """Writes the frame as a log, prepares it into folder/out, returns the manifest."""
    (folder / "log").mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / "log" / "events.parquet")
    return prepare_log(open_log(folder / "log", spec), folder, history)


def prepare_log(log: EventLog, folder: Path, history: int = 4) -> dict[str, Any]:
    options = PrepareOptions(history=history, arguments={})
    return prepare(log, folder / "out", lambda known: split_by_time(known.days, None, 1), options)


def read_samples(folder: Path) -> pl.DataFrame:
    """All samples of a prepared folder, in the order in which they lie in the files, with split and period."""
    paths = sorted((folder / "out").rglob("*.parquet"))
    parts = [pl.read_parquet(p, hive_partitioning=False).with_columns(path=pl.lit(str(p.parent))) for p in paths]
    return pl.concat(parts)
