"""Samples of 20 scalar and 3 list columns, prepared from a random log, and a base over all of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from coldrank.configs import base as parts
from coldrank.configs import kuairand
from coldrank.data.batches import DataFolder
from coldrank.data.log import Group, LogSpec
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, prepare
from coldrank.data.split import split_by_time
from coldrank.models.features import Feature, Table
from coldrank.models.heads import Binary
from coldrank.train.config import RunConfig
from coldrank.train.sections import DataConfig

HISTORY = 50
# Enough for histories that are full more often than not.
EVENTS_PER_USER = 100
ITEMS = 20_000
_GROUPS = ("user", "item", "author", "user_x_author")

# Scalars: user, item, time, 2 labels, 4 counts and gaps, 4 rates, 2 counts by group, 2 of the context, 3 of user and
# item.
# Lists: the last 50 items, their authors (int64 each) and whether they were viewed long (int8).
SPEC = LogSpec(
    user="user",
    item="item",
    time="time",
    tasks={"long_view": "long_view", "like": "like"},
    signals={"long_view": "long_view"},
    keys={"author": "author"},
    groups=(Group(keys=("author",)), Group(keys=("user", "author"), parent="user")),
    history={"author_id": "author"},
    context={"tab": "tab", "hour": "hour"},
    user_features={"country": "country"},
    item_features={"author_id": "author", "duration_s": "duration"},
)


def write_samples(folder: Path, rows: int, seed: int = 1) -> DataFolder:
    """Writes `rows` samples of ten days to FOLDER/data, the last two for test; keeps those that are there."""
    data = folder / "data"
    if not (data / "manifest.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "log.parquet"
        _log(np.random.default_rng(seed), rows).write_parquet(log)
        split = lambda known: split_by_time(known.days, None, 0)
        prepare(open_log(log, SPEC), data, split, PrepareOptions(history=HISTORY, arguments={"rows": rows}))
    return DataFolder.open(data)


def _log(rng: np.random.Generator, rows: int) -> pl.DataFrame:
    user = rng.integers(0, max(1, rows // EVENTS_PER_USER), rows)
    item = (ITEMS * rng.random(rows) ** 3).astype(np.int64)  # a few items have most of the events
    time = np.sort(rng.integers(0, 10 * 86_400_000, rows))
    return pl.DataFrame(
        {
            "user": user * 1_000_003,  # ids as they are, not rows of a table
            "item": item * 1_000_033,
            "time": 19_097 * 86_400_000 + time,
            "author": item // 10 * 1_000_037,
            "country": user % 50,
            "duration": (5.0 + item % 300).astype(np.float32),
            "tab": rng.integers(0, 5, rows),
            "hour": time // 3_600_000 % 24,
            "long_view": (rng.random(rows) < 0.3).astype(np.int8),
            "like": (rng.random(rows) < 0.05).astype(np.int8),
        }
    )


def base() -> RunConfig:
    """A plain ranker with the widths and rates of KuaiRand's base, which reads every column."""
    arm = kuairand.base()
    return replace(
        arm,
        tasks={"long_view": Binary(), "like": Binary()},
        features=(
            Feature(name="user_id", role="user", kind="id", table="user"),
            Feature(name="user_country", role="user", kind="id", table="category", salted=True),
            Feature(name="item_id", role="item", kind="id", table="item"),
            Feature(name="item_author_id", role="item", kind="id", table="author"),
            Feature(name="item_duration_s", role="item", kind="number", transform="log1p"),
            Feature(name="item_age_h", role="item", kind="bucket", buckets=16, dim=4),
            Feature(name="tab", role="context", kind="id", table="category", salted=True),
            Feature(name="hour", role="context", kind="id", table="category", salted=True),
            Feature(name="user_gap_h", role="context", kind="bucket", buckets=32, dim=4),
            *parts.counts(["user_views", "item_views"], dim=8),
            *parts.counts(["views_author", "views_user_x_author"]),
            *parts.rates(_GROUPS, ["long_view"]),
            *parts.rate_buckets(_GROUPS, ["long_view"], buckets=16, dim=4),
            *parts.history(HISTORY, {"hist_item_id": "item", "hist_author_id": "author"}, ["long_view"]),
        ),
        tables=(
            Table(name="user", rows=32_768, dim=16, mapping="vocabulary", min_count=2),
            Table(name="item", rows=32_768, dim=16, mapping="vocabulary", min_count=2),
            Table(name="author", rows=8_192, dim=8, mapping="vocabulary", min_count=2),
            Table(name="category", rows=1_024, dim=4),
        ),
        data=DataConfig(fit=("train",), batch_size=512),
        train=replace(arm.train, threads=1),
    )
