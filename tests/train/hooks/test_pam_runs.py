"""Runs with PAM: what may reach the weights that score, and what checkpoints hold."""

import json
from dataclasses import replace

import polars as pl
import pytest
from periods import write_periods
from retrieving import DAYS
from retrieving import with_pam as config
from samples import write_samples
from tiny import changed

from coldrank.analysis.explain.measure import load_run
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.train.run import build
from coldrank.train.trainer import train


def scored(folder, out, ranks, wanted):
    train(wanted, DataFolder.open(folder), out, ranks, fresh=True, diff="")
    return pl.read_parquet(out / "predictions-next.parquet"), out


def flipped(folder, out, day):
    """The same data with every label of a day the other way round."""
    write_periods(out, DAYS)
    for path in sorted(out.rglob("*.parquet")):
        if f"period={day}" in str(path):
            frame = pl.read_parquet(path, hive_partitioning=False)
            frame.with_columns(label_long_view=1 - pl.col("label_long_view")).write_parquet(path, row_group_size=32)
    return out


@pytest.mark.parametrize(("leaks", "support_of"), [(False, "batch"), (False, "previous"), (True, "batch")])
def test_labels_under_test_move_no_prediction(folder, tmp_path, ranks, leaks, support_of):
    settings = {"serve_decay": 0.5, "own": True, "adapt_on_test_labels": leaks, "support_of": support_of}
    wanted = config(gamma=(1.0, 3.0, 2.0), **settings)
    last = flipped(folder, tmp_path / "flipped", DAYS[-1])
    (before, _), (after, _) = scored(folder, tmp_path / "a", ranks, wanted), scored(last, tmp_path / "b", ranks, wanted)
    assert not before["label_long_view"].equals(after["label_long_view"])
    keys = ["user_id", "item_id", "time", "prob_long_view"]
    assert before.select(keys).equals(after.select(keys)) is not leaks


@pytest.mark.parametrize("other", [{}, {"support_of": "previous"}, {"own": True}])
def test_a_run_that_resumes_ends_as_one_that_was_not_stopped(folder, tmp_path, ranks, other):
    wanted = config(gamma=(1.0, 3.0, 2.0), serve_decay=0.5, **other)
    for name, steps in (("whole", (0,)), ("cut", (5, 0))):
        for most in steps:
            part = replace(wanted, train=replace(wanted.train, steps=most))
            train(part, DataFolder.open(folder), tmp_path / name, ranks, fresh=False, diff="")
    cut, whole = (tmp_path / name / "predictions-next.parquet" for name in ("cut", "whole"))
    assert cut.read_bytes() == whole.read_bytes()
    run, _ = load_run(tmp_path / "cut", DataFolder.open(folder), ranks)
    (hook,) = run.hooks
    assert hook.enhancer.kept.any() and hook.enhancer.store.shape == (
        72,
        8,
    )  # the rows of the table, however long the run


def test_retrieval_is_measured_for_each_period(folder, tmp_path, ranks):
    _, out = scored(folder, tmp_path / "run", ranks, config())
    summary = json.loads((out / "summary.json").read_text())
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    mine = lambda rows: [r["value"] for r in rows if (r["cohort"], r["metric"]) == ("popular_item", "recall@5")]
    of_periods = mine([r for r in rows if r["split"] == "next" and r["period"]])
    assert len(of_periods) == 3 and mine(summary) == [pytest.approx(sum(of_periods) / 3)]


def test_quantiles_of_the_first_period_part_the_groups(folder, tmp_path, ranks):
    wanted = config(quantiles=4)
    scored(folder, tmp_path / "run", ranks, wanted)
    run = build(wanted, DataFolder.open(folder), ranks)
    run.load(tmp_path / "run" / "checkpoints", {})
    first = pl.concat([pl.read_parquet(p) for p in sorted(folder.glob(f"samples/*/period={DAYS[0]}/*"))])["item_views"]
    assert run.hooks[0].cuts.tolist() == [int(first.quantile(q, "linear")) for q in (0.25, 0.5, 0.75)]


@pytest.mark.tried(
    "hooks", "pam.quantiles=4 without a stream", "cuts at the quantiles of item_views over data.fit, in the checkpoint"
)
@pytest.mark.parametrize("order", ["random", "time"])
def test_quantiles_of_the_passes_part_the_groups(data, tmp_path, ranks, order):
    wanted = config(quantiles=4)
    wanted = replace(wanted, train=replace(wanted.train, mode="passes", first_period="", look_back=(1, 7), steps=4))
    wanted = replace(wanted, data=replace(wanted.data, order=order))
    train(replace(wanted, train=replace(wanted.train, steps=2)), data, tmp_path / "run", ranks, fresh=False, diff="")
    views = pl.concat([pl.read_parquet(p)["item_views"] for p in data.files(("train", "valid"))])
    expected = [int(views.quantile(q, "linear")) for q in (0.25, 0.5, 0.75)]
    assert 20 < expected[0] < expected[2] < 199
    for _ in ("as it was trained", "after it went on"):
        run = build(wanted, data, ranks)
        run.load(tmp_path / "run" / "checkpoints", {})
        assert run.hooks[0].cuts.tolist() == expected
        train(wanted, data, tmp_path / "run", ranks, fresh=False, diff="")
    assert sum(run.hooks[0].get_buffer("shift_towers_item_layers_0_bias").abs().sum(1) > 0) > 2


@pytest.mark.tried(
    "hooks", "pam.quantiles of item_views that are mostly 0", "refused before a step; the run that was there stays"
)
def test_quantiles_that_are_one_are_refused(tmp_path, ranks):
    folder = write_samples(tmp_path / "data")
    wanted = config(quantiles=4)
    wanted = replace(wanted, train=replace(wanted.train, mode="passes", first_period="", look_back=(1, 7), steps=1))
    train(wanted, DataFolder.open(folder), tmp_path / "run", ranks, fresh=True, diff="")
    before = (tmp_path / "run" / "predictions-test.parquet").read_bytes()
    for path in folder.rglob("*.parquet"):
        frame = pl.read_parquet(path, hive_partitioning=False)
        low = pl.when(pl.col("item_views") < 150).then(0).otherwise(pl.col("item_views")).cast(pl.Int32)
        frame.with_columns(item_views=low).write_parquet(path, row_group_size=128)
    with pytest.raises(
        UserError, match=r"pam.quantiles=4: item_views of 700 rows part at \[0, 0, \d+\], and two of these are one"
    ):
        train(wanted, DataFolder.open(folder), tmp_path / "run", ranks, fresh=True, diff="")
    assert (tmp_path / "run" / "predictions-test.parquet").read_bytes() == before


@pytest.mark.tried("hooks", "pam.cuts with train.warm_start from a run of other cuts", "the cuts are the config's")
def test_a_warm_start_brings_no_cuts(data, tmp_path, ranks):
    plain = config()
    plain = replace(plain, train=replace(plain.train, mode="passes", first_period="", look_back=(1, 7), steps=1))
    train(plain, data, tmp_path / "first", ranks, fresh=True, diff="")
    warm = replace(plain.train, warm_start=str(tmp_path / "first"))
    wanted = changed(replace(plain, train=warm), "pam", cuts=(10, 30, 90, 150))
    train(wanted, data, tmp_path / "second", ranks, fresh=True, diff="")
    run = build(wanted, data, ranks)
    run.load(tmp_path / "second" / "checkpoints", {})
    assert run.hooks[0].cuts.tolist() == [10, 30, 90, 150]
