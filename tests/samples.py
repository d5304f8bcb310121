"""Writes a small prepared data folder of random samples, for tests of everything after `coldrank prepare`."""

import json
from pathlib import Path

import numpy as np
import polars as pl

TASKS = ("long_view", "like")


def write_samples(folder: Path, rows: dict[str, int] | None = None, *, seed: int = 0, history: int = 6) -> Path:
    """rows: split -> number of samples, times ascending over the splits. Labels depend on user and item."""
    rng = np.random.default_rng(seed)
    partitions, start = [], 1_650_000_000_000
    for split, n in (rows or {"train": 600, "valid": 100, "test": 200}).items():
        frame = _frame(rng, n, start, history)
        start += n * 1000
        path = folder / "samples" / f"split={split}" / "period=2022-05-01" / "part-0.parquet"
        path.parent.mkdir(parents=True)
        frame.write_parquet(path, row_group_size=128)
        low, high = frame["time"].min(), frame["time"].max()
        partitions.append(
            {
                "path": str(path.relative_to(folder)),
                "split": split,
                "period": "2022-05-01",
                "rows": n,
                "time_min": low,
                "time_max": high,
            }
        )
    columns = [{"name": c, "type": str(t), "nullable": True, "meaning": ""} for c, t in frame.schema.items()]
    (folder / "manifest.json").write_text(
        json.dumps({"format": 1, "source": f"random {seed}", "columns": columns, "partitions": partitions})
    )
    return folder


def _frame(rng: np.random.Generator, n: int, start: int, history: int) -> pl.DataFrame:
    user, item = rng.integers(0, 40, n), rng.integers(0, 60, n)
    lengths = rng.integers(0, history + 1, n)
    lists = lambda low, high: [rng.integers(low, high, k).tolist() for k in lengths]
    score = np.sin(user) + np.cos(item)
    like = rng.random(n) < 0.2
    return pl.DataFrame(
        {
            "user_id": user,
            "item_id": item,
            "time": start + 1000 * np.arange(n),
            "label_long_view": (score + rng.normal(0, 0.5, n) > 0).astype(np.int8),
            "label_like": [None if rng.random() < 0.3 else int(x) for x in like],
            "user_views": rng.integers(0, 30, n),
            "item_views": rng.integers(0, 200, n),
            "rate_user_long_view": (0.2 + 0.6 * rng.random(n)).astype(np.float32),
            "user_gap_h": [None if rng.random() < 0.1 else float(rng.random()) for _ in range(n)],
            "item_tags": [rng.integers(0, 9, k).tolist() for k in rng.integers(0, 3, n)],
            "hist_item_id": lists(0, 60),
            "hist_long_view": lists(-1, 2),
            "hist_like": lists(-1, 2),
        },
        schema_overrides={
            "label_like": pl.Int8,
            "user_views": pl.Int32,
            "item_views": pl.Int32,
            "user_gap_h": pl.Float32,
            "item_tags": pl.List(pl.Int64),
            "hist_item_id": pl.List(pl.Int64),
            "hist_long_view": pl.List(pl.Int8),
            "hist_like": pl.List(pl.Int8),
        },
    )
