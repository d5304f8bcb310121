"""Samples with labels of every kind, and a config that learns them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from samples import write_samples
from tiny import sample_base

from coldrank.models.heads import Binary, Ordinal, Regression
from coldrank.train.config import RunConfig

TASKS = {
    "long_view": Binary(),
    "watch_s": Regression(loss="huber", transform="log1p", weight=0.3),
    "stars": Ordinal(5, ks=(3,), weight=0.7),
}


def write_valued(folder: Path, rows: dict[str, int] | None = None) -> Path:
    """`write_samples` with `label_watch_s` (seconds, of a fifth unknown), `label_stars` (1 to 5) and `weight` (above
    0)."""
    write_samples(folder, rows)
    manifest = json.loads((folder / "manifest.json").read_text())
    rng = np.random.default_rng(7)
    for partition in manifest["partitions"]:
        path = folder / partition["path"]
        frame = pl.read_parquet(path, glob=False)
        score = np.sin(frame["user_id"].to_numpy()) + np.cos(frame["item_id"].to_numpy())
        seconds = np.exp(1.5 + score + rng.normal(0, 0.5, len(frame))) * (rng.random(len(frame)) > 0.1)
        unknown = pl.Series(rng.random(len(frame)) < 0.2)
        frame = frame.with_columns(
            pl.Series("label_watch_s", seconds.astype(np.float32)),
            pl.Series("label_stars", np.clip(np.round(3 + score + rng.normal(0, 0.5, len(frame))), 1, 5), pl.Float32),
            pl.Series("weight", rng.uniform(0.5, 2.0, len(frame)).astype(np.float32)),
        )
        frame.with_columns(pl.when(~unknown).then("label_watch_s")).write_parquet(path, row_group_size=128)
    for name in ("label_watch_s", "label_stars", "weight"):
        manifest["columns"].append({"name": name, "type": "float32", "nullable": True, "meaning": ""})
    manifest["labels"] = {"long_view": "flag", "like": "flag", "watch_s": "number", "stars": "level"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def valued_base() -> RunConfig:
    """`sample_base` with a task of each kind."""
    return replace(sample_base(), tasks=TASKS)
