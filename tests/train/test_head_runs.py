"""Runs whose tasks are of every kind."""

import json
from dataclasses import replace

import polars as pl
import pytest
import torch
from valued import TASKS, valued_base, write_valued

from coldrank.configs import base as arms
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.metrics import values
from coldrank.models.heads import Binary, Ordinal, Regression
from coldrank.models.two_tower import TwoTower
from coldrank.train import checkpoint
from coldrank.train.checks import validate
from coldrank.train.evaluate import summary_table
from coldrank.train.task import RankingTask
from coldrank.train.trainer import train


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataFolder:
    return DataFolder.open(write_valued(tmp_path_factory.mktemp("data")))


def config(**changes):
    base = arms.poso(valued_base())
    return replace(base, train=replace(base.train, epochs=6, log_every=1, **changes))


@pytest.fixture(scope="module")
def run(data, ranks, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    rows = train(config(), data, out, ranks, fresh=True, diff="")
    return out, rows


def test_every_task_learns_and_is_judged_by_its_own_metrics(run):
    out, rows = run
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    of = lambda task, metric: [
        r["value"] for r in lines if (r["task"], r["metric"], r["split"]) == (task, metric, "fit")
    ]
    for task, metric in {"all": "loss", "long_view": "logloss", "watch_s": "loss", "stars": "loss"}.items():
        losses = of(task, metric)
        assert len(losses) == 66 and sum(losses[-11:]) < 0.97 * sum(losses[:11]), task
    assert not of("watch_s", "logloss")
    names = {task: [r["metric"] for r in rows if (r["task"], r["cohort"]) == (task, "all")] for task in TASKS}
    assert {task: tuple(found) for task, found in names.items()} == {t: head.metrics for t, head in TASKS.items()}
    best = {r["task"]: r["value"] for r in rows if r["cohort"] == "all" and r["metric"] in ("auc", "xauc")}
    assert all(value > 0.55 for value in best.values()), best


def test_predictions_have_the_type_of_each_head(run):
    out, rows = run
    frame = pl.read_parquet(out / "predictions-test.parquet")
    kinds = {n: kind for n, kind in frame.schema.items() if n.startswith(("label_", "prob_", "pred_"))}
    assert kinds == {
        "label_long_view": pl.Int8,
        "prob_long_view": pl.Float32,
        "label_watch_s": pl.Float32,
        "pred_watch_s": pl.Float32,
        "label_stars": pl.Float32,
        "pred_stars": pl.Float32,
    }
    assert 0 < frame["label_watch_s"].null_count() < 100 and frame["pred_stars"].is_between(1, 5).all()
    known = frame.drop_nulls("label_watch_s")
    (xauc,) = [r for r in rows if (r["task"], r["metric"], r["cohort"]) == ("watch_s", "xauc", "all")]
    assert xauc["value"] == values.xauc(known["label_watch_s"].to_numpy(), known["pred_watch_s"].to_numpy())
    assert xauc["n"] == len(known)


def test_the_table_shows_the_first_metric_of_each(run):
    _, rows = run
    value = {(r["task"], r["metric"]): r["value"] for r in rows if r["cohort"] == "new_user"}
    lines = summary_table(rows).splitlines()
    assert lines[0].split() == ["all", "new_user", "regular_user", "new_item", "regular_item"]
    assert (
        lines[3].split()[:3] == ["watch_s:", "xauc", "%"]
        and lines[3].split()[4] == f"{100 * value['watch_s', 'xauc']:.2f}"
    )
    plain = [r for r in rows if r["task"] != "long_view" and r["metric"] != "xauc"]
    assert f"{value['stars', 'mae']:.4g}" in summary_table(plain)


def test_thresholds_are_dense_parameters_of_the_checkpoint(run, data, ranks):
    out, _ = run
    path, shapes = checkpoint.newest(out / "checkpoints", ranks)
    assert {n: s for n, s in shapes.items() if "model.heads" in n} == {
        "model.heads.parts.label_stars.first": [],
        "model.heads.parts.label_stars.gaps": [3],
    }
    gaps = torch.empty(3)
    checkpoint.load_into(path, {"model": {"heads.parts.label_stars.gaps": gaps}})
    assert (gaps - TASKS["stars"].build().gaps).abs().min() > 1e-3


def test_a_run_in_two_parts_is_the_run_in_one(run, data, ranks, tmp_path):
    for steps in (20, 0):
        train(config(steps=steps), data, tmp_path / "parts", ranks, fresh=False, diff="")
    whole, parts = ((out / "predictions-test.parquet").read_bytes() for out in (run[0], tmp_path / "parts"))
    assert whole == parts
    losses = [
        [r["value"] for r in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if r["metric"] == "loss"]
        for out in (run[0], tmp_path / "parts")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 3 * 66


def test_micro_batches_give_the_step_of_the_whole_batch(data, fitted_on):
    batch = fitted_on.make(next(fitted_on.reader.epoch(0)))
    found = []
    for accumulate in (1, 3):
        torch.manual_seed(0)
        task = RankingTask(validate(config()), config().model, TASKS, accumulate=accumulate)
        out = task(batch)
        out.loss.backward()
        found.append((out.loss, [p.grad for name, p in task.named_parameters() if "embeddings" not in name]))
    torch.testing.assert_close(found[0][0], found[1][0])
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.fixture
def fitted_on(data, ranks):
    from types import SimpleNamespace

    from coldrank.data.fit import fit_encoder
    from coldrank.data.read import SampleReader
    from coldrank.train.run import build

    run = build(config(), data, ranks)
    fit_encoder(run.encoder, data.files(("train",)))
    return SimpleNamespace(make=run.make, reader=SampleReader(data.files(("train",)), run.make.columns(), 50))


REFUSED = {
    "a level that is none": (
        {"stars": Ordinal(4)},
        r"part-0.parquet: column 'label_stars', row \d+: 5.0 is no level: there are 4, 1 to 4 \(\d+ such\)",
    ),
    "seconds as a binary task": (
        {"watch_s": Binary()},
        r"column 'label_watch_s', row \d+: \S+ is neither 0 nor 1, as a binary task has them",
    ),
}


@pytest.mark.parametrize(
    "what",
    [pytest.param(w, marks=pytest.mark.tried("data folders", w, "refused with file, column, row")) for w in REFUSED],
)
def test_labels_that_a_head_does_not_take_are_named(data, ranks, tmp_path, what):
    tasks, message = REFUSED[what]
    with pytest.raises(UserError, match=message):
        train(replace(config(), tasks=tasks), data, tmp_path / "run", ranks, fresh=True, diff="")


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"watch_s": Regression(delta=2.0)}, r"tasks.watch_s.delta=2.0: has no effect with loss='mse'"),
        ({"watch_s": Regression(loss="log")}, "tasks.watch_s.loss='log': input should be 'mse', 'huber' or 'mae'"),
        ({"stars": Ordinal(1)}, "tasks.stars.levels=1: must not be below 2"),
        ({"stars": Ordinal(5, ks=(0,))}, "tasks.stars.ks.0=0: must be above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(tasks, message):
    with pytest.raises(UserError, match=message):
        validate(replace(config(), tasks=tasks))


@pytest.mark.tried("configs and runs", "a two-tower model of a task that is not binary", "refused: should be binary")
def test_a_two_tower_model_learns_a_binary_task():
    features = tuple(f for f in config().features if f.role not in ("sequence", "pc"))
    towers = replace(config(), features=features, model=TwoTower(), hooks=())
    validate(replace(towers, tasks={"long_view": Binary()}))
    with pytest.raises(UserError, match="tasks.watch_s is regression, should be binary"):
        validate(replace(towers, tasks={"watch_s": Regression()}))
