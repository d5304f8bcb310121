"""Whole runs on several ranks and on one, side by side: their data, how they are started, and that they end alike.

Differences are of rounding alone: the largest found was 5e-7 of a tensor's largest element in tables and what
optimizers hold, and 2e-5 in dense weights, once.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from launch import launch
from samples import write_samples
from steps import in_order
from torch import Tensor
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from coldrank.train import checkpoint
from coldrank.train.config import RunConfig

# Passes of 3 steps of 64 rows and one of 11; scored in batches of 16 rows for each rank.
PASSES = {"train": 203, "test": 37}
# Each a period: 64 rows and 36, then fewer rows than ranks.
PERIODS = {"a": 100, "b": 2, "c": 1, "d": 70}
FEW = {"train": 3, "test": 1}


def global_batch(config: RunConfig, **train: Any) -> RunConfig:
    """Steps of 64 rows of all ranks together; row counts of tables that are odd."""
    tables = tuple(replace(t, rows=61) if t.rows == 64 else t for t in config.tables)
    data = replace(config.data, batch_size=1024, global_batch_size=64, eval_batch_size=16, fit=("train",))
    return replace(config, tables=tables, data=data, train=replace(config.train, log_every=3, **train))


def write_data(folder: Path) -> None:
    write_samples(folder / "passes", PASSES)
    write_samples(folder / "few", FEW)
    periods = write_samples(folder / "periods", PERIODS)
    manifest = json.loads((periods / "manifest.json").read_text())
    for p in manifest["partitions"]:
        p["period"] = p["split"]
    (periods / "manifest.json").write_text(json.dumps(manifest))


def run_all(folder: Path, ranks: int, cases: dict[str, dict[str, object]], out: str) -> None:
    path = folder / f"{out}.json"
    path.write_text(json.dumps(cases))
    launch(ranks, Path(__file__).with_name("whole.py"), path, "--out", folder / out)


def state(run: Path) -> dict[str, Tensor]:
    """All tensors of a run's last checkpoint, but for what each rank has for itself."""
    last = run / "checkpoints" / f"step-{checkpoint.steps(run / 'checkpoints')[-1]}"
    found: dict[str, Tensor] = {}

    def walk(part: dict[str, Any], prefix: str) -> None:
        for name, value in part.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}/")
            elif isinstance(value, Tensor) and not name.startswith(("random.", "recent.")):
                found[prefix + name] = in_order(value) if name.endswith(".known") else value

    with pytest.warns(UserWarning, match="torch.distributed is unavailable"):
        walk(_load_state_dict_from_keys(checkpoint_id=str(last)), "")
    return found


def same(ours: Path, theirs: Path) -> None:
    """Weights, optimizer states, encoders, metrics and scores, to rounding; rows and counts exactly."""
    mine, wanted = state(ours), state(theirs)
    assert mine.keys() == wanted.keys() and any("momentum1" in key for key in wanted)
    for key, value in wanted.items():
        if value.is_floating_point():
            # Adam divides a gradient near 0, which is all rounding, by its own size.
            dense, tables = key.startswith(("model/ranker", "model/hooks")), key.startswith("model/embeddings")
            tolerance = 5e-5 if dense else 2e-6 if tables else 5e-6
            assert (mine[key] - value).abs().max() <= tolerance * value.abs().max(), key
        else:
            assert torch.equal(mine[key], value), key
    rows, expected = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (ours, theirs)
    )
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        if row["metric"] != "samples_per_second":
            value = other["value"]
            assert row == other | {"value": value and pytest.approx(value, rel=1e-5, abs=1e-6)}
    facts = [json.loads((run / "run.json").read_text()) for run in (ours, theirs)]
    assert facts[0]["samples"] == facts[1]["samples"] and facts[0]["steps"] == facts[1]["steps"]
    for path in theirs.rglob("predictions-*.parquet"):
        frame, other = pl.read_parquet(ours / path.relative_to(theirs)), pl.read_parquet(path)
        scores = [c for c in other.columns if c.startswith("prob_")]
        assert frame.drop(scores).equals(other.drop(scores))
        assert (frame.select(scores) - other.select(scores)).to_numpy() == pytest.approx(0, abs=2e-6)
