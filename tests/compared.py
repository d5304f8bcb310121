"""Runs to compare: made-up rows with known odds, and run folders of them."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from coldrank.analysis.compare.compare import compare, contrast_task, correct
from coldrank.analysis.compare.days import Days
from coldrank.analysis.compare.resample import Resampling, measure
from coldrank.analysis.compare.rows import Comparison, Row
from coldrank.analysis.compare.runs import SharedRows
from coldrank.cli.compare import add_compare, choose_runs
from coldrank.metrics.mann_whitney import FloatArray, IntArray, Numbers

DAY_MS = 86_400_000


def shared_rows(rng: np.random.Generator, users: int, rows: int) -> tuple[SharedRows, FloatArray]:
    """Rows and their log odds; users differ in their rate and in how many rows they have."""
    user = rng.choice(users, rows, p=rng.dirichlet(np.ones(users)))
    odds = rng.normal(0, 1, users)[user] + rng.normal(0, 1, rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int8)
    views = rng.integers(0, 30, rows)
    return SharedRows(
        users=user * 10**9,
        items=np.arange(rows),
        times=np.sort(rng.integers(0, 5 * DAY_MS, rows)),
        user_views=views,
        item_views=views * 4,
        labels={"like": labels},
    ), odds


def scores_of(rng: np.random.Generator, odds: FloatArray, noise: float, seed_noise: float) -> Numbers:
    """A model's probabilities: true log odds with noise per row, whose size varies with the seed."""
    scale = noise * np.exp(seed_noise * rng.normal())
    return np.asarray(1 / (1 + np.exp(-(odds + scale * rng.normal(size=len(odds))))))


def compare_scores(
    labels: IntArray,
    resampling: Resampling,
    base: Sequence[Numbers],
    variant: Sequence[Numbers],
    days: Days | None = None,
) -> dict[tuple[str, str], Row]:
    """(cohort, metric) -> the row of the variant."""
    measured = {
        arm: {seed: measure(labels, scores, resampling, days) for seed, scores in enumerate(runs)}
        for arm, runs in (("base", base), ("variant", variant))
    }
    rows = contrast_task("like", labels, measured, "base", resampling, {"variant": list(measured["base"])})
    return {(row.cohort, row.metric): row for row in correct(rows) if row.arm == "variant"}


def write_run(
    folder: Path, name: str, seed: int, tasks: Sequence[str] = ("like",), rows: int = 400, shift: float = 0.0
) -> pl.DataFrame:
    """A run folder as `coldrank train` leaves it; the same rows for every run, scores by name and seed."""
    rng = np.random.default_rng(0)
    frame = {
        "user_id": np.sort(rng.integers(0, 40, rows)),
        "item_id": rng.integers(0, 99, rows),
        "time": np.arange(rows),
        "user_views": rng.integers(0, 30, rows).astype(np.int32),
        "item_views": rng.integers(0, 120, rows).astype(np.int32),
    }
    noise = np.random.default_rng([seed, len(name)])
    for task in tasks:
        odds = rng.normal(size=rows)
        label = rng.random(rows) < 1 / (1 + np.exp(-odds))
        frame |= {f"label_{task}": label.astype(np.int8)}
        frame |= {f"prob_{task}": (1 / (1 + np.exp(-odds - shift * noise.normal(size=rows)))).astype(np.float32)}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"name": name, "seed": seed, "train": {"steps": 1}}))
    table = pl.DataFrame(frame)
    table.write_parquet(folder / "predictions-test.parquet")
    return table


def compared(*folders: Path, baseline: str | None = None, allowed: Sequence[str] = ()) -> Comparison:
    """What the command finds, without its files."""
    runs, arm = choose_runs(folders, baseline, "test")
    return compare(runs, arm, resamples=20, allowed=allowed)


def run_command(*arguments: str | Path) -> None:
    parser = argparse.ArgumentParser()
    add_compare(parser.add_subparsers())
    args = parser.parse_args(["compare", "--resamples", "20", *map(str, arguments)])
    args.run(args)
