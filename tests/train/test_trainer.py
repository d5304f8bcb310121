"""Whole runs on small random samples."""

import json
from dataclasses import replace

import polars as pl
import pytest
import torch
from samples import write_samples
from tiny import sample_base, with_optim

from coldrank.configs import base as arms
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.train import checkpoint
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.run import build
from coldrank.train.trainer import train


def run(config: RunConfig, data, out, ranks, fresh=False):
    train(config, data, out, ranks, fresh=fresh, diff="")
    return (out / "metrics.jsonl").read_text(), (out / "predictions-test.parquet").read_bytes()


def without_speed(metrics: str) -> list[str]:
    return [line for line in metrics.splitlines() if "samples_per_second" not in line]


def losses(out) -> list[float]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [r["value"] for r in rows if r["metric"] == "loss"]


def test_a_run_repeats_bit_for_bit(data, ranks, tmp_path):
    config = arms.poso(sample_base())
    first, second = (run(config, data, tmp_path / name, ranks) for name in "ab")
    assert without_speed(first[0]) == without_speed(second[0]) and first[1] == second[1]
    other = run(replace(config, seed=2), data, tmp_path / "c", ranks)
    assert other[1] != first[1]


def test_a_run_that_was_stopped_ends_as_one_that_was_not(data, ranks, tmp_path):
    config = arms.poso(sample_base())
    config = replace(config, model=replace(config.model, dropout=0.2), train=replace(config.train, epochs=2))
    whole = run(config, data, tmp_path / "whole", ranks)
    half = replace(config, train=replace(config.train, steps=16, checkpoint_every=6))
    run(half, data, tmp_path / "cut", ranks)
    resumed = run(config, data, tmp_path / "cut", ranks)
    assert resumed[1] == whole[1]
    assert losses(tmp_path / "cut")[-1] == losses(tmp_path / "whole")[-1]
    assert checkpoint.steps(tmp_path / "cut/checkpoints") == [16, 22]


def test_the_weight_of_new_users_reaches_the_loss(data, ranks, tmp_path):
    config = sample_base()
    config = replace(config, train=replace(config.train, steps=1, log_every=1))
    for name, weight in (("plain", 1.0), ("none", 0.0), ("twice", 2.0)):
        run(replace(config, cold_weight=weight), data, tmp_path / name, ranks)
    plain, none, twice = (losses(tmp_path / name)[0] for name in ("plain", "none", "twice"))
    assert 0 < none < plain and twice - plain == pytest.approx(plain - none, rel=1e-5)


def test_run_folder_holds_what_other_programs_read(data, ranks, tmp_path):
    config = replace(sample_base(), name="probe")
    metrics, _ = run(config, data, tmp_path / "r", ranks)
    for line in metrics.splitlines():
        assert list(json.loads(line)) == ["step", "period", "split", "cohort", "task", "metric", "value", "n"]
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    assert {r["cohort"] for r in summary} == {"all", "new_user", "regular_user", "new_item", "regular_item"}
    assert {"auc", "auc_fixed_avc", "gauc", "ne", "logloss"} <= {r["metric"] for r in summary}
    frame = pl.read_parquet(tmp_path / "r/predictions-test.parquet")
    assert frame.height == 200 and frame["time"].is_sorted()
    assert {"user_id", "item_id", "time", "user_views", "item_views"} < set(frame.columns)
    assert frame["label_like"].null_count() > 0 and frame["prob_like"].is_between(0, 1).all()
    assert json.loads((tmp_path / "r/config.json").read_text())["name"] == "probe"
    assert list((tmp_path / "r/tensorboard").iterdir())


def test_training_learns(data, ranks, tmp_path):
    config = sample_base()
    config = with_optim(replace(config, train=replace(config.train, epochs=30)), dense={"lr": 5e-3})
    run(config, data, tmp_path / "r", ranks)
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    auc = {(r["task"], r["cohort"]): r["value"] for r in summary if r["metric"] == "auc"}
    assert auc["long_view", "all"] > 0.8  # depends on user and item alone, both in train


def test_base_and_every_poso_arm_start_from_the_same_loss(data, ranks, tmp_path):
    first = {}
    for arm in (
        lambda c: c,
        arms.poso_mha,
        arms.poso_mmoe,
        arms.poso_mlp,
        arms.poso,
        lambda c: arms.constant_pc(arms.poso(c)),
    ):
        config = arm(sample_base())
        config = replace(config, train=replace(config.train, steps=1, log_every=1))
        run(config, data, tmp_path / config.name, ranks)
        first[config.name] = losses(tmp_path / config.name)[0]
    assert len(first) == 6 and len(set(first.values())) <= 2
    assert first["base"] == first["poso_mmoe"] == first["poso_mlp"]
    assert first["base"] == pytest.approx(first["poso"], abs=1e-6)  # POSO(MHA) sums its folds: equal but for rounding


def test_a_run_goes_on_with_its_own_config_and_data_alone(data, ranks, tmp_path):
    config = sample_base()
    config = replace(config, train=replace(config.train, steps=1))
    run(config, data, tmp_path / "r", ranks)
    before = (tmp_path / "r/config.json").read_bytes()
    for other, message in [
        (replace(config, seed=2), r"another config \(seed: 1 -> 2\); --fresh starts over"),
        (arms.poso(config), "another config .* and 3 more"),
    ]:
        with pytest.raises(UserError, match=message):
            run(other, data, tmp_path / "r", ranks)
    elsewhere = DataFolder.open(write_samples(tmp_path / "data", seed=5))
    with pytest.raises(UserError, match="was trained on other data"):
        run(config, elsewhere, tmp_path / "r", ranks)
    assert (tmp_path / "r/config.json").read_bytes() == before
    longer = replace(config, train=replace(config.train, steps=3, log_every=1))
    run(longer, data, tmp_path / "r", ranks)
    assert checkpoint.steps(tmp_path / "r/checkpoints") == [1, 3]
    run(replace(config, seed=2), data, tmp_path / "r", ranks, fresh=True)
    assert checkpoint.steps(tmp_path / "r/checkpoints") == [1]


def test_checkpoint_of_another_model_is_refused(data, ranks, tmp_path):
    config = sample_base()
    config = replace(config, train=replace(config.train, steps=1))
    run(config, data, tmp_path / "r", ranks)
    wider = replace(config, model=replace(config.model, expert_hidden=(24, 8)))
    (tmp_path / "r/config.json").write_text(json.dumps(to_dict(wider)))
    with pytest.raises(UserError, match="the checkpoint does not fit this model .*mmoe.experts"):
        run(wider, data, tmp_path / "r", ranks)


def test_mistakes_leave_a_folder_as_it_was(data, ranks, tmp_path):
    config = sample_base()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/precious.txt").write_text("keep")
    with pytest.raises(UserError, match="is no run folder"):
        run(config, data, tmp_path / "notes", ranks, fresh=True)
    run(replace(config, train=replace(config.train, steps=1)), data, tmp_path / "r", ranks)
    wrong = replace(config, data=replace(config.data, evaluate="tset"))
    with pytest.raises(UserError, match="no split 'tset'"):
        run(wrong, data, tmp_path / "r", ranks, fresh=True)
    assert (tmp_path / "notes/precious.txt").exists() and checkpoint.steps(tmp_path / "r/checkpoints") == [1]


def test_metrics_of_a_repeated_evaluation_are_there_once(data, ranks, tmp_path):
    config = sample_base()
    config = replace(config, train=replace(config.train, steps=1))
    first, _ = run(config, data, tmp_path / "r", ranks)
    again, _ = run(config, data, tmp_path / "r", ranks)
    assert without_speed(again) == without_speed(first)


def test_tables_of_ids_never_seen_stay_as_they_were(data, ranks):
    """The optimizer is row-wise: rows that no sample reads do not move."""
    config = sample_base()
    parts = build(config, data, ranks)
    weights = parts.model.state_dict()["embeddings.ebc.embedding_bags.tag.weight"]
    before = weights.local_shards()[0].tensor.clone()
    assert before.std() == pytest.approx(config.optim.tables.init, rel=0.3)
    torch.manual_seed(0)
    again = build(config, data, ranks).model.state_dict()["embeddings.ebc.embedding_bags.tag.weight"]
    assert torch.equal(before, again.local_shards()[0].tensor)


def test_a_loss_that_is_not_finite_stops_the_run(data, ranks, tmp_path):
    config = sample_base()
    config = with_optim(replace(config, train=replace(config.train, log_every=1)), dense={"lr": 1e37})
    with pytest.raises(UserError, match=r"^step \d+: the loss is not finite"):
        run(config, data, tmp_path / "r", ranks)
    assert checkpoint.steps(tmp_path / "r/checkpoints") == []


def test_a_cold_pass_reads_new_users_alone_and_may_train_the_gates_only(data, ranks, tmp_path):
    config = arms.poso(sample_base())
    plain = with_optim(config, decay="constant")
    rows = pl.concat([pl.read_parquet(p, hive_partitioning=False) for p in data.files(config.data.fit)])
    cold = rows.filter(pl.col("user_views") <= 10).height
    run(plain, data, tmp_path / "plain", ranks)
    before = json.loads((tmp_path / "plain/run.json").read_text())
    for what in ("all", "gates"):
        passes = replace(plain, train=replace(plain.train, cold_passes=1, cold_trains=what))
        run(passes, data, tmp_path / what, ranks)
        after = json.loads((tmp_path / what / "run.json").read_text())
        assert after["samples"] - before["samples"] == cold and 0 < cold < rows.height
        batch = plain.data.batch_size
        assert after["steps"] - before["steps"] == -(-cold // batch)
        # The same run up to the cold pass; after it, only what was to be trained has moved.
        moved = _moved(plain, data, ranks, tmp_path / "plain", tmp_path / what)
        assert all("gate" in name for name in moved) == (what == "gates") and moved


def _moved(config, data, ranks, before, after) -> list[str]:
    states = []
    for folder in (before, after):
        built = build(config, data, ranks)
        built.load(folder / "checkpoints", {})
        named = built.model.state_dict()
        states.append(
            {n: v.local_tensor().clone() if hasattr(v, "local_tensor") else v.clone() for n, v in named.items()}
        )
    return [n for n in states[0] if not torch.equal(states[0][n], states[1][n])]
