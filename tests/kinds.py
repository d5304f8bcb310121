"""A small log with columns of every kind that a feature takes, its spec, and an arm that reads all of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tiny import tiny

from coldrank.cli.main import main
from coldrank.configs.base import cross, personalization_code
from coldrank.data.batches import DataFolder
from coldrank.data.log import History, LogSpec
from coldrank.models.features import Feature, Table
from coldrank.models.heads import Binary
from coldrank.models.two_tower import TwoTower
from coldrank.train.config import RunConfig
from coldrank.train.hooks.hook import Hook

START, HOUR_MS, ROWS = 1_650_000_000_000, 3_600_000, 900
SPEC = LogSpec(
    user="viewer",
    item="clip",
    time="shown_at",
    tasks={"click": "clicked"},
    history={"surface": "surface"},
    histories={"clicks": History(length=5, where="click", columns=("item_id", "surface", "hours"))},
    context={"surface": "surface", "query": "query", "price": "price", "mood": pl.struct("moods", "mood_scores")},
    item_table="items.parquet",
    item_table_id="id",
    item_features={"emb": "emb", "tags": "tags"},
)


def write_log(folder: Path) -> None:
    """900 events of 40 users and 30 items; of a fifth of the items and of the queries no vector is known."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    user, item = rng.integers(0, 40, ROWS), rng.integers(0, 30, ROWS)
    vectors = rng.normal(size=(30, 4)).astype(np.float32)
    queries = [None if i % 5 == 0 else rng.normal(size=3).tolist() for i in range(ROWS)]
    score = vectors[item, 0] + np.sin(user)
    pl.DataFrame(
        {
            "viewer": user,
            "clip": item,
            "shown_at": START + HOUR_MS * np.arange(ROWS),
            "clicked": (score + rng.normal(0, 0.5, ROWS) > 0).astype(np.int8),
            "surface": rng.integers(0, 3, ROWS),
            "price": [None if i % 7 == 0 else float(i % 90) for i in range(ROWS)],
            "query": pl.Series(queries, dtype=pl.List(pl.Float64)),
            "moods": pl.Series([_words(i) for i in range(ROWS)], dtype=pl.List(pl.String)),
            "mood_scores": pl.Series([_scores(i) for i in range(ROWS)], dtype=pl.List(pl.Float64)),
        }
    ).write_parquet(folder / "events.parquet")
    known = [None if i % 5 == 0 else vectors[i].tolist() for i in range(30)]
    tags = [None if i % 4 == 0 else list(zip(_words(i), _scores(i), strict=True)) for i in range(30)]
    items = {
        "id": pa.array(range(30)),
        "emb": pa.array(known, pa.list_(pa.float32())),
        "tags": pa.array(tags, pa.map_(pa.string(), pa.float32())),
    }
    pq.write_table(pa.table(items), folder / "items.parquet")


def _words(i: int) -> list[str]:
    return [f"w{k % 11}" for k in range(i, i + i % 4)]


def _scores(i: int) -> list[float]:
    """Below 0, 0, and all 0 as well."""
    return [0.0 if i % 6 == 1 else (k * 37 % 10) / 4 - 0.5 for k in range(i, i + i % 4)]


def prepared(folder: Path) -> DataFolder:
    """The log, prepared by the command."""
    write_log(folder / "log")
    (folder / "spec.py").write_text("from kinds import SPEC as spec\n")
    command = ["prepare", "log", "--spec", folder / "spec.py", "--data", folder / "log", "--out", folder / "data"]
    assert main([*map(str, command), "--test-share", "0.2", "--valid-share", "0.1"]) == 0
    return DataFolder.open(folder / "data")


def clicks(length: int = 4) -> tuple[Feature, ...]:
    """The named history with its hours, as buckets and as numbers."""
    of = {"role": "sequence", "sequence": "clicks", "length": length}
    hours = "hist_clicks_hours"
    return (
        Feature(name="hist_clicks_item_id", kind="id", table="item", **of),
        Feature(name="hours_bucket", column=hours, kind="bucket", buckets=6, dim=20, **of),
        Feature(name="hours", column=hours, kind="number", transform="log1p", **of),
    )


def base() -> RunConfig:
    """An arm that reads all of it."""
    return tiny(
        RunConfig(
            name="base",
            tasks={"click": Binary()},
            features=(
                Feature(name="user_id", role="user", kind="id", table="user"),
                Feature(name="query", role="context", kind="vector", length=3, dim=6, unit=False),
                Feature(name="item_id", role="item", kind="id", table="item"),
                Feature(name="item_emb", role="item", kind="vector", length=4, dim=7),
                Feature(name="price", role="context", kind="number", transform="log1p"),
                Feature(name="price_bucket", column="price", role="context", kind="bucket", buckets=5, dim=12),
                Feature(
                    name="tags",
                    column="item_tags",
                    role="item",
                    kind="id",
                    table="tag",
                    many=True,
                    weights="item_tags_weights",
                ),
                Feature(name="mood", role="context", kind="id", table="tag", many=True, weights="mood_weights"),
                Feature(name="plain_tags", column="item_tags", role="item", kind="id", table="tag", many=True),
                Feature(name="surface", role="context", kind="id", table="tag"),
                cross("surface", "item_id", rows=60, dim=8),
                cross("item_id", "price_bucket", "user_id", rows=50, dim=4),
                cross("user_id", "surface", rows=30, dim=4),
                *clicks(),
                personalization_code("user_views", dim=16),
            ),
            tables=(
                Table(name="user", rows=64, dim=4),
                Table(name="item", rows=50, dim=8, mapping="vocabulary"),
                Table(name="tag", rows=40, dim=12, mapping="multi_hash"),
            ),
        )
    )


def poso() -> RunConfig:
    """With every part personalized."""
    config = base()
    model = replace(config.model, poso_mha=True, poso_mmoe=True, poso_mlp=True)
    return replace(config, name="poso", model=model)


def two_towers() -> RunConfig:
    """Towers in the place of the ranker, without what reads both sides."""
    config = base()
    of_both = lambda f: f.kind == "cross" and "item_id" in f.of
    features = tuple(f for f in config.features if f.role not in ("sequence", "pc") and not of_both(f))
    return replace(config, name="two_towers", features=features, model=TwoTower(widths=(12, 8)))


def with_hook(hook: Hook) -> RunConfig:
    """With a hook, and users as wide as items."""
    config = base()
    tables = tuple(replace(t, dim=8) if t.name in ("user", "item") else t for t in config.tables)
    return replace(config, tables=tables, hooks=(hook,))
