"""Samples that weigh by a column: like repeated rows, times `cold_weight`, in training alone."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from periods import write_periods
from tiny import sample_base
from valued import TASKS, valued_base, write_valued

from coldrank.configs import base as arms
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.data.read import SampleReader
from coldrank.models.features import Feature
from coldrank.models.heads import Binary
from coldrank.models.heads.heads import Heads
from coldrank.models.two_tower import TwoTower
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.pam import Pam
from coldrank.train.optim.micro_batches import rows_of
from coldrank.train.run import build
from coldrank.train.task import RankingTask
from coldrank.train.trainer import train


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataFolder:
    return DataFolder.open(write_valued(tmp_path_factory.mktemp("data")))


def weighted(base: RunConfig | None = None, column: str = "weight") -> RunConfig:
    base = base or arms.poso(valued_base())
    return replace(base, data=replace(base.data, weight_column=column))


@pytest.fixture(scope="module")
def batch(data, ranks):
    run = build(weighted(), data, ranks)
    reader = SampleReader(data.files(("train",)), run.make.columns(training=True), 40)
    return run.make(next(reader.epoch(0)))


def test_a_weight_of_2_is_two_equal_rows():
    torch.manual_seed(0)
    heads, logits = Heads(TASKS), torch.randn(5, 3)
    labels = torch.tensor([[1, 3.5, 2], [0, 0.0, 5], [float("nan"), 9.0, 1], [1, 1.0, 4], [0, 2.0, 3]])
    twice = torch.tensor([0, 1, 1, 2, 3, 3, 4])
    found = []
    for rows, weights in ((torch.arange(5), torch.tensor([1.0, 2, 1, 2, 1])), (twice, None)):
        z = logits.clone().requires_grad_()
        loss, _ = heads.loss(z[rows], labels[rows], weights, rows=7)
        found.append((loss, *torch.autograd.grad(loss, [z, *heads.parameters()])))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_the_batch_has_the_column_and_its_slices_their_part(batch, data):
    frame = pl.read_parquet(data.files(("train",))[0])
    by_key = {(r["user_id"], r["item_id"], r["time"]): r["weight"] for r in frame.iter_rows(named=True)}
    keys = zip(*(batch.keys[k].tolist() for k in ("user_id", "item_id", "time")), strict=True)
    assert batch.weights.tolist() == [pytest.approx(by_key[key]) for key in keys]
    assert rows_of(batch, slice(3, 9)).weights.tolist() == batch.weights[3:9].tolist()
    assert batch.to(torch.device("cpu")).weights.tolist() == batch.weights.tolist()
    assert replace(batch, weights=None).to(torch.device("cpu")).weights is None


def loss_of(batch, **settings) -> torch.Tensor:
    torch.manual_seed(0)
    task = RankingTask(validate(weighted()), weighted().model, TASKS, **settings)
    return task(batch).loss


def test_the_step_s_loss_is_of_the_weighted_rows_times_those_of_new_users(batch):
    """Row by row, each alone: the loss of a batch is the mean of row losses times weights."""
    cold = batch.keys["user_views"] <= 10
    assert 0 < cold.sum() < len(cold)
    torch.manual_seed(0)
    task = RankingTask(validate(weighted()), weighted().model, TASKS).eval()
    with torch.no_grad():
        logits = task(batch).logits
        each = (task.heads.losses(logits, batch.labels) * task.heads.weights).sum(1)
    found = {}
    for weight in (1.0, 3.0):
        task.cold_weight = weight
        with torch.no_grad():
            found[weight] = task(batch).loss
        wanted = (each * batch.weights * torch.where(cold, weight, 1.0)).mean()
        torch.testing.assert_close(found[weight], wanted)
    with torch.no_grad():
        plain = task(replace(batch, weights=None)).loss
    assert abs(float(plain - found[3.0])) > 1e-3


def test_weights_of_1_are_none_and_slices_give_the_whole(batch):
    ones = replace(batch, weights=torch.ones(len(batch)))
    torch.testing.assert_close(loss_of(ones), loss_of(replace(batch, weights=None)), rtol=0, atol=0)
    torch.testing.assert_close(loss_of(batch, accumulate=3), loss_of(batch))


def test_evaluation_reads_no_weights(data, ranks):
    make = build(weighted(), data, ranks).make
    assert "weight" not in {c.name for c in make.columns()}
    assert "weight" in {c.name for c in make.columns(training=True)}
    reader = SampleReader(data.files(("test",)), make.columns(), 40)
    assert make(next(reader.epoch(0))).weights is None


def metrics(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_by_the_weights_and_is_judged_without(data, ranks, tmp_path):
    """Weights of 0 and 1 are the samples without the others; the split that is judged lacks the column."""
    folder = write_valued(tmp_path / "data")
    manifest = json.loads((folder / "manifest.json").read_text())
    for part in manifest["partitions"]:
        frame = pl.read_parquet(folder / part["path"], glob=False)
        frame = frame.drop("weight") if part["split"] == "test" else frame.with_columns(weight=pl.lit(0.0))
        frame.write_parquet(folder / part["path"], row_group_size=128)
    config = weighted()
    config = replace(config, train=replace(config.train, steps=4, log_every=1))
    train(config, DataFolder.open(folder), tmp_path / "run", ranks, fresh=True, diff="")
    losses = [r["value"] for r in metrics(tmp_path / "run") if (r["task"], r["metric"]) == ("all", "loss")]
    assert losses == [0.0] * 4, "rows that weigh 0 teach nothing"
    assert [r["n"] for r in metrics(tmp_path / "run") if (r["metric"], r["cohort"]) == ("auc", "all")][-1] == 200
    assert "weight" not in pl.read_parquet(tmp_path / "run" / "predictions-test.parquet").columns


def test_a_stream_learns_by_the_weights(ranks, tmp_path):
    """The stage before the stream, whose rows are shuffled, and the periods, which are read in order of time."""
    days = [f"2022-05-0{d}" for d in range(1, 5)]
    folder = write_periods(tmp_path / "data", days)
    for path in folder.rglob("*.parquet"):
        weight = float("period=2022-05-01" in str(path))
        frame = pl.read_parquet(path, glob=False, hive_partitioning=False).with_columns(weight=pl.lit(weight))
        frame.write_parquet(path, row_group_size=32)
    config = weighted(arms.poso(sample_base()))
    stream = {"mode": "periods", "first_period": days[1], "look_back": (), "log_every": 1}
    train(
        replace(config, train=replace(config.train, **stream)),
        DataFolder.open(folder),
        tmp_path / "run",
        ranks,
        fresh=True,
        diff="",
    )
    losses = [r["value"] for r in metrics(tmp_path / "run") if (r["task"], r["metric"]) == ("all", "loss")]
    first = -(-160 // config.data.batch_size)
    assert all(loss > 0 for loss in losses[:first]) and losses[first:] == [0.0] * (len(losses) - first)
    assert len(losses) > 2 * first


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-0.5, r"part-0.parquet: column 'weight', row \d+: -0.5 is below 0, as no weight may be \(1 such\)"),
        (float("nan"), r"part-0.parquet: column 'weight', row \d+: nan is not a finite number"),
        (float("inf"), r"part-0.parquet: column 'weight', row \d+: inf is not a finite number"),
        (None, r"part-0.parquet: column 'weight', row \d+: null; must be a number"),
        ("drop", r"part-0.parquet: no column 'weight' among its"),
        ("text", r"part-0.parquet: column 'weight' is (large_)?string, should be a number"),
    ],
)
@pytest.mark.tried("data folders", "a weight below 0, NaN, infinite or missing; a column that is not there", "named")
def test_weights_that_cannot_be_are_named(ranks, tmp_path, value, message):
    folder = write_valued(tmp_path / "data")
    path = next((folder / "samples" / "split=train").rglob("*.parquet"))
    frame = pl.read_parquet(path, glob=False)
    seventh = pl.int_range(pl.len()) == 7
    changed = {
        "drop": lambda: frame.drop("weight"),
        "text": lambda: frame.with_columns(weight=pl.lit("2")),
    }.get(value, lambda: frame.with_columns(weight=pl.when(seventh).then(value).otherwise("weight").cast(pl.Float32)))
    changed().write_parquet(path, row_group_size=128)
    config = weighted()
    config = replace(config, train=replace(config.train, steps=12))
    with pytest.raises(UserError, match=message):
        train(config, DataFolder.open(folder), tmp_path / "run", ranks, fresh=True, diff="")


def test_a_weighted_run_goes_on_as_the_run_in_one(data, ranks, tmp_path):
    config = weighted()
    config = replace(config, hooks=(Mwuf(max_views=99, users=4),), train=replace(config.train, log_every=1))
    for folder, steps in {"whole": (6,), "parts": (3, 6)}.items():
        for count in steps:
            run = replace(config, train=replace(config.train, steps=count))
            train(run, data, tmp_path / folder, ranks, fresh=False, diff="")
    whole, parts = ((tmp_path / f / "predictions-test.parquet").read_bytes() for f in ("whole", "parts"))
    assert whole == parts


def two_tower() -> RunConfig:
    base = valued_base()
    features = tuple(f for f in base.features if f.role not in ("sequence", "pc"))
    return weighted(replace(base, features=features, model=TwoTower(), tasks={"long_view": Binary()}))


def with_feature() -> RunConfig:
    base = valued_base()
    return weighted(replace(base, features=(*base.features, Feature(name="weight", role="context", kind="number"))))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (with_feature, "data.weight_column='weight': feature 'weight' reads it; must be no input"),
        (lambda: weighted(column="label_watch_s"), "data.weight_column='label_watch_s': is a label"),
        (two_tower, "data.weight_column='weight': model='two_tower' compares rows; must be empty"),
        (
            lambda: replace(weighted(), hooks=(Pam(cuts=(20, 60, 120)),)),
            "data.weight_column='weight': 'pam' weighs by its own groups alone; must be empty",
        ),
    ],
)
@pytest.mark.tried("configs and runs", "data.weight_column where it has no use, or is an input or a label", "refused")
def test_what_has_no_use_of_weights_refuses_them(config, message):
    with pytest.raises(UserError, match=message):
        validate(config())
