"""The warm-up experiments: the published split, what methods may see, and a whole small experiment."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from samples import write_samples
from tiny import sample_base

from coldrank.configs import mwuf
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.experiments.warm_up import methods
from coldrank.experiments.warm_up.base import Base, SplitRows, pretrain
from coldrank.experiments.warm_up.experiment import METHODS, PASSES, experiment, read
from coldrank.experiments.warm_up.protocol import SPLITS, Protocol, split_of, write_splits
from coldrank.experiments.warm_up.table import tables
from coldrank.models.deepfm import DeepFM
from coldrank.models.features import Table
from coldrank.models.heads import Binary
from coldrank.train.checks import validate

SMALL = Protocol(old_above=14, new_from=9, k=2)


def small_config():
    base = sample_base()
    kept = [f for f in base.features if f.name in ("user_id", "item_id", "item_tags")]
    table_rows = {"user": 64, "item": 64, "tag": 32}
    tables = tuple(Table(name=n, rows=r, dim=4, mapping="vocabulary") for n, r in table_rows.items())
    model = DeepFM(tower_hidden=(4,))
    config = replace(base, tasks={"long_view": Binary()}, features=tuple(kept), tables=tables, model=model)
    return replace(config, data=replace(config.data, fit=("old",)))


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm")
    data = DataFolder.open(write_samples(folder / "data"))
    return write_splits(data, folder / "split", SMALL)


def test_the_published_rows_of_movielens(shared_data):
    columns = ["user", "a", "item_id", "b", "stars", "c", "time"]
    text = (shared_data / "ml-1m/ratings.dat").read_bytes().replace(b"::", b"\t")
    frame = pl.read_csv(text, separator="\t", has_header=False, new_columns=columns[::2])
    frame = frame.sort("time", "user", "item_id").with_columns(
        (pl.col("item_id").cum_count().over("item_id").cast(pl.Int64) - 1).alias("item_seen"),
        pl.len().over("item_id").alias("item_events:"),
    )
    counts = frame.select(split_of(Protocol()).alias("split"))["split"].value_counts()
    by_split = dict(counts.drop_nulls().iter_rows())
    assert by_split == {"old": 854_530, "warm_a": 19_440, "warm_b": 19_440, "warm_c": 19_440, "test": 58_409}


def test_a_new_items_events_are_split_in_order_of_time(split):
    frames = {s: pl.read_parquet(split.files((s,)), hive_partitioning=False) for s in SPLITS}
    assert not set(frames["old"]["item_id"]) & set(frames["test"]["item_id"])
    last = None
    for i, name in enumerate(SPLITS[1:]):
        part = frames[name]
        assert part["time"].is_sorted()
        low, high = 2 * i, 2 * i + 1 if i < 3 else 13
        assert part["item_seen"].is_between(low, high).all()
        if i < 3:
            assert (part["item_id"].value_counts()["count"] == 2).all()
        first = dict(part.group_by("item_id").agg(pl.col("time").min()).iter_rows())
        assert last is None or all(last[item] < time for item, time in first.items())
        last = dict(part.group_by("item_id").agg(pl.col("time").max()).iter_rows())


def test_held_out_items_are_old_ones_cut_short(split, tmp_path):
    data = DataFolder.open(split.path.parent / "data")
    tuning = write_splits(data, tmp_path / "t", replace(SMALL, held_out=3))
    items = lambda folder, name: set(pl.read_parquet(folder.files((name,)), hive_partitioning=False)["item_id"])
    assert items(tuning, "old") | items(tuning, "test") == items(split, "old")
    assert not items(tuning, "old") & items(tuning, "test")
    test = pl.read_parquet(tuning.files(("test",)), hive_partitioning=False)
    assert test["item_seen"].max() < SMALL.old_above


def test_a_split_without_rows_is_named(split, tmp_path):
    data = DataFolder.open(split.path.parent / "data")
    with pytest.raises(UserError, match="no row in split old"):
        write_splits(data, tmp_path / "none", Protocol())


@pytest.fixture(scope="module")
def base(split):
    base = Base(small_config(), split, 1)
    old, warm = SplitRows(split, "old", base.make), SplitRows(split, "warm_a", base.make)
    pretrain(base, old, 1)
    return base, old, warm


def test_users_before_an_event(base):
    model, old, _ = base
    means = methods.users_before(model, old)
    users = model.all_events(old).static[:, model.user]
    for row in range(0, old.count, 37):
        before = (old.places == old.places[row]) & (old.seen < old.seen[row])
        wanted = users[before].mean(0) if before.any() else torch.zeros(4)
        assert torch.allclose(means[row], wanted, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_changes_the_new_ids_alone_and_learns_from_the_warm_set(name, base):
    model, old, warm = base
    kind = METHODS[name][0]
    events, before = model.all_events(warm), {k: v.clone() for k, v in model.state_dict().items()}
    method = kind(model, old, model.side_of(warm), 1)
    settings = methods.MethodSettings(passes=3, id_lr=0.05)
    method.start(settings)
    cold = method.ids(events).detach().clone()
    loss = model.loss(events, cold).item()
    method.warm(events)
    if kind is not methods.CvarWarm:  # which replaces what was learned
        assert model.loss(events, method.ids(events)).item() < loss
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    method.start(settings)
    assert torch.equal(method.ids(events), cold)


def test_labels_of_later_sets_are_seen_by_none(base, split):
    """Scores of the cold phase do not depend on any label of the new items."""
    model, old, warm = base
    events = model.all_events(warm)
    for name, (kind, _) in METHODS.items():
        embeddings = []
        for _ in range(2):
            method = kind(model, old, model.side_of(warm), 1)
            method.start(methods.MethodSettings())
            embeddings.append(method.ids(events).detach())
            warm.raw["label_long_view"] = 1 - np.asarray(warm.raw["label_long_view"])
        assert torch.equal(*embeddings), name


def test_an_experiment_is_resumed_and_told(split, tmp_path):
    data, names = DataFolder.open(split.path.parent / "data"), ["DropoutNet", "posterior"]
    config = replace(small_config(), name="deepfm")
    experiment(config, data, tmp_path, SMALL, 1, names)
    once = (tmp_path / "results.jsonl").read_text()
    alone = tables(read(tmp_path / "results.jsonl"))
    assert "nan" not in alone and alone.count("an interval over seeds needs more") == 2  # a model's two tables
    experiment(config, data, tmp_path, SMALL, 2, names)
    results = read(tmp_path / "results.jsonl")
    assert (tmp_path / "results.jsonl").read_text().startswith(once)
    assert len(results) == 2 * 2 * len(PASSES)
    assert all(len(r["fixed"]) == len(r["slides"]) == 4 for r in results)
    mean = 100 * np.mean([r["fixed"][3][0] for r in results if r["method"] == "posterior" and r["passes"] == 5])
    assert "| posterior | 5 |" in tables(results) and "needs more" not in tables(results)
    assert f"| {mean:.2f} (" in tables(results).split("| posterior | 5 |")[1].splitlines()[0]
    json.dumps(results)


@pytest.mark.parametrize("arm", [mwuf.movielens, mwuf.kuairand])
def test_arms_count_nothing_over_time(arm):
    config = arm()
    validate(config)
    columns = [c for f in config.features for c in f.raw_columns]
    assert not [c for c in columns if c.startswith(("rate_", "views_", "hist_", "item_views", "user_views"))]


def test_the_posterior_of_a_warm_set_is_the_prior_of_the_next(base, split):
    """Two sets, one Newton step each: precisions add up, the mode moves by the gradient of its own set."""
    model, old, warm = base
    sets = [model.all_events(rows) for rows in (warm, SplitRows(split, "warm_b", model.make, warm.items))]
    method = methods.Posterior(model, old, model.side_of(warm), 1)
    method.start(methods.MethodSettings(passes=1, strength=1e-5))  # as much as the events tell
    ids, precision = method.prior.mean.clone(), method.prior.precision.clone()
    for events in sets:
        gradient, matrix = method._curvature(events, ids)
        precision = precision + matrix
        ids = ids - torch.linalg.solve(precision, gradient)
        method.warm(events)
        torch.testing.assert_close(method.ids(events), ids[events.items], rtol=1e-4, atol=1e-5)


def test_the_generator_learns_as_meta_embedding_says(base, monkeypatch):
    """Pan et al. (2019), Eq. 7 to 10: phi' = phi - eta dl_a/dphi, l = 0.1 l_a(phi) + 0.9 l_b(phi'), in float64.

    The generator's first gradient, at a rate so high that the inner step tells.
    """
    model, old, warm = base
    looked_up, steps, look_up = [], [], model.events

    class Watched(torch.optim.Adam):
        def step(self):  # stays where it is
            steps.append([(p.detach().double(), p.grad.double()) for p in self.param_groups[0]["params"]])

    def events(rows, index):
        looked_up.append((index, look_up(rows, index)))
        return looked_up[-1][1]

    monkeypatch.setattr(methods, "RATE", 500.0)
    monkeypatch.setattr(methods.torch.optim, "Adam", Watched)
    monkeypatch.setattr(model, "events", events)
    methods.MetaEmb(model, old, model.side_of(warm), 1)
    (first, a), (second, b) = looked_up[-2:]
    assert torch.equal(old.places[first], old.places[second]) and (first != second).mean() > 0.5
    exact = deepcopy(model).double()

    def loss(events, ids):
        events = replace(events, static=events.static.double(), dense=events.dense.double())
        scores = torch.sigmoid(exact.logits(events, ids))
        shares = torch.where(events.labels == 1, scores, 1 - scores)[~torch.isnan(events.labels)]
        return -shares.log().mean()

    (hidden, bias), (out, shift) = [[p.clone().requires_grad_() for p, _ in steps[-1][i : i + 2]] for i in (0, 2)]
    side = a.static[:, model.side].double()
    phi = torch.relu(side @ hidden.T + bias) @ out.T + shift
    loss_a = loss(a, phi)
    (slope,) = torch.autograd.grad(loss_a, phi, create_graph=True)
    total = 0.1 * loss_a + 0.9 * loss(b, phi - 500.0 * slope)
    wanted = torch.autograd.grad(total, (hidden, bias, out, shift))
    for (_, gradient), right in zip(steps[-1], wanted, strict=True):
        torch.testing.assert_close(gradient, right, rtol=1e-3, atol=1e-9)
