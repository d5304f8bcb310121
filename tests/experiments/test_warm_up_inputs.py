"""What the warm-up command takes, and what it refuses in a line."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from samples import write_samples
from test_warm_up import small_config
from tiny import with_optim

from coldrank.data.batches import DataFolder
from coldrank.experiments.warm_up.__main__ import main
from coldrank.experiments.warm_up.base import Base, SplitRows, pretrain
from coldrank.experiments.warm_up.experiment import PASSES
from coldrank.experiments.warm_up.protocol import Protocol, write_splits
from coldrank.experiments.warm_up.table import tables
from coldrank.models.features import Feature
from coldrank.models.heads import Binary, Regression
from coldrank.train.config import to_dict
from coldrank.train.hooks.mwuf import Mwuf

SMALL = ["--old-above", "14", "--new-from", "9", "--k", "2", "--models", "deepfm"]


def called(config, folder, data, *more):
    path = folder / "config.json"
    path.write_text(json.dumps(to_dict(config)))
    command = ["--config", str(path), "--data", str(data), "--out", str(folder / "out"), *SMALL]
    return main([*command, "--seeds", "1", "--methods", "DropoutNet;posterior", *more])


def renamed(**item):
    """`small_config` with another name for the item's table and feature."""
    config = small_config()
    tables = tuple(replace(t, name="film") if t.name == "item" else t for t in config.tables)
    film_id = Feature(name="film_id", column="item_id", role="item", kind="id", table="film", **item)
    features = tuple(film_id if f.name == "item_id" else f for f in config.features)
    return replace(config, tables=tables, features=features)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_samples(tmp_path_factory.mktemp("warm") / "data")


@pytest.mark.tried("hooks", "warm_up on a log whose item's table and feature have other names", "runs")
@pytest.mark.tried("hooks", "warm_up with --seeds 1", "means, and differences over users; no ±nan")
def test_a_table_of_another_name_and_one_seed(prepared, tmp_path, capsys):
    assert called(renamed(), tmp_path, prepared) == 0
    text = capsys.readouterr().out
    assert "nan" not in text and (tmp_path / "out/tables.md").read_text() == text[:-1]
    cells = lambda method: next(line for line in text.splitlines() if line.startswith(f"| {method} | 5 |")).split("|")
    assert all("±" not in cell and 0 < float(cell) < 100 for cell in cells("DropoutNet")[3:7])
    assert all("±" in cell for cell in cells("posterior")[3:7])


def test_other_models_are_warmed_up(prepared, tmp_path, capsys):
    assert called(small_config(), tmp_path, prepared, "--models", "fm,pnn,afn") == 0
    text = capsys.readouterr().out
    assert "nan" not in text and all(f"### {model}," in text for model in ("fm", "pnn", "afn"))


@pytest.mark.parametrize("model", ["gru4rec", "din"])
def test_models_of_histories_are_refused(prepared, tmp_path, capsys, model):
    assert called(small_config(), tmp_path, prepared, "--models", model) == 2
    assert f"model='{model}' reads a history; no feature has role 'sequence'" in capsys.readouterr().err


@pytest.mark.parametrize("salted", [False, True])
def test_the_ids_of_the_old_items_are_those_of_their_table(prepared, tmp_path, salted):
    split = write_splits(DataFolder.open(prepared), tmp_path / "split", Protocol(old_above=14, new_from=9, k=2))
    config = renamed(salted=salted)
    if salted:  # which is for hashed tables
        config = replace(config, tables=tuple(replace(t, mapping="hash") for t in config.tables))
    base = Base(config, split, 1)
    old = SplitRows(split, "old", base.make)
    pretrain(base, old, 1)
    first = np.unique(np.asarray(old.raw["item_id"]), return_index=True)[1]
    wanted = base.events(old, first).static[:, base.slot]
    assert base.ids_of(old).shape == (len(old.items), 4) and base.ids_of(old).equal(wanted)
    assert salted or len(wanted.unique(dim=0)) == len(old.items)


def with_feature(feature):
    config = small_config()
    return replace(config, features=(*config.features, feature))


NOT = "hooks"
HISTORY = Feature(name="past", column="hist_item_id", kind="id", table="item", role="sequence", sequence="h", length=6)


@pytest.mark.parametrize(
    ("config", "more", "text"),
    [
        pytest.param(
            lambda: with_feature(HISTORY),
            [],
            "feature 'past' of hist_item_id: tells of events that",
            marks=pytest.mark.tried(NOT, "warm_up with a history", "refused: the feature, and why"),
        ),
        pytest.param(
            lambda: with_feature(Feature(name="n", column="item_views", role="context", kind="number")),
            [],
            "feature 'n' of item_views: tells of events",
            marks=pytest.mark.tried(
                NOT, "warm_up with counts of events among the inputs", "refused: the feature, and why"
            ),
        ),
        pytest.param(
            lambda: replace(small_config(), tasks={"long_view": Binary(), "like": Binary()}),
            [],
            "tasks=['long_view', 'like']: the warm-up experiments have one",
            marks=pytest.mark.tried(NOT, "warm_up with two tasks", "refused, in the place of taking the first"),
        ),
        pytest.param(
            lambda: replace(small_config(), tasks={"long_view": Regression()}),
            [],
            "tasks.long_view is regression: the warm-up experiments have a binary one",
            marks=pytest.mark.tried(NOT, "warm_up with a task that is not binary", "refused by its name"),
        ),
        pytest.param(
            lambda: replace(small_config(), features=tuple(f for f in small_config().features if f.name != "user_id")),
            [],
            "features: no embedded id reads 'user_id'",
            marks=pytest.mark.tried(NOT, "warm_up without a feature of the user's id", "refused: the column"),
        ),
        pytest.param(
            lambda: replace(
                small_config(), features=tuple(f for f in small_config().features if f.name != "item_tags")
            ),
            [],
            "features: scales by embedded features of role 'item'; none",
        ),
        pytest.param(
            lambda: replace(small_config(), tables=tuple(replace(t, mapping="growing") for t in small_config().tables)),
            [],
            "table 'user': mapping='growing': is not grown here",
            marks=pytest.mark.tried(NOT, "warm_up with growing tables", "refused: all items would share a row"),
        ),
        pytest.param(
            lambda: replace(small_config(), train=replace(small_config().train, steps=3)),
            [],
            "train.steps=3: has no effect in the warm-up",
            marks=pytest.mark.tried(NOT, "warm_up with train.steps", "refused: it trains whole passes"),
        ),
        pytest.param(
            lambda: replace(small_config(), data=replace(small_config().data, since="2000-05")),
            [],
            "data.since='2000-05': has no effect in the warm-up",
        ),
        pytest.param(lambda: replace(small_config(), hooks=(Mwuf(),)), [], "hooks=['mwuf']: the warm-up experiments"),
        pytest.param(small_config, ["--methods", "none"], "--methods 'none': there are base, random"),
        pytest.param(small_config, ["--models", "none"], "no model 'none'"),
        pytest.param(small_config, ["--seeds", "0"], "--seeds 0: must be above 0"),
        pytest.param(small_config, ["--k", "0"], "--k 0: must be above 0"),
    ],
)
def test_what_it_cannot_follow_is_refused_before_work(config, more, text, prepared, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    assert called(config(), tmp_path / "run", prepared, *more) == 2
    printed = capsys.readouterr().err
    assert text in printed and len(printed.splitlines()) == 1
    assert not (tmp_path / "run/out").exists()


@pytest.mark.tried("hooks", "warm_up on a log of positives only", "refused: no AUC without both classes")
def test_a_log_of_positives_only(tmp_path, capsys):
    data = write_samples(tmp_path / "data")
    for path in data.rglob("*.parquet"):
        frame = pl.read_parquet(path, hive_partitioning=False)
        frame.with_columns(label_long_view=pl.lit(1, pl.Int8)).write_parquet(path)
    assert called(small_config(), tmp_path, data) == 2
    assert "label_long_view is [1.0] in all of warm_a: no AUC without both classes" in capsys.readouterr().err


@pytest.mark.tried("hooks", "warm_up into the folder of an experiment with other settings", "refused: what differs")
def test_results_of_another_experiment_are_not_mixed_in(prepared, tmp_path, capsys):
    assert called(small_config(), tmp_path, prepared, "--methods", "DropoutNet") == 0
    before = (tmp_path / "out/results.jsonl").read_text()
    assert called(small_config(), tmp_path, prepared, "--k", "3") == 2
    assert "protocol: Protocol(old_above=14" in capsys.readouterr().err
    other = with_optim(small_config(), dense={"lr": 0.5})
    assert called(other, tmp_path, prepared) == 2
    assert "optim.dense.lr: 0.001 -> 0.5" in capsys.readouterr().err
    assert (tmp_path / "out/results.jsonl").read_text() == before and len(before.splitlines()) == len(PASSES)


def test_a_table_of_one_seed_tells_what_is_known():
    draws = lambda value: [value, *np.linspace(value - 0.01, value + 0.01, 20).tolist()]
    row = {"model": "deepfm", "seed": 1, "passes": 1, "seconds": 1.0, "prepare_seconds": 0.0, "users": 50.0}
    results = [
        row | {"method": name, "fixed": [draws(auc)] * 4, "slides": [draws(auc)] * 4}
        for name, auc in (("DropoutNet", 0.7), ("MWUF", 0.72))
    ]
    text = tables(results)
    assert "nan" not in text and "| DropoutNet | 1 | 70.00 | 70.00 | 70.00 | 70.00 | 1.0 |" in text
    assert "| MWUF | 1 | 72.00 (+2.00" in text
    alone = tables(results[1:])
    assert "| MWUF | 1 | 72.00 | 72.00" in alone and "nan" not in alone
