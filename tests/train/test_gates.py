"""How far gates have gone, against a loop over the rows; and that who reads a run is told."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from samples import write_samples
from tiny import sample_base, tiny, with_optim
from torch.distributed._shard.sharded_tensor import ShardedTensor

from coldrank.analysis.compare.controls import ArmControls, find_controls, format_controls, unmoved_arms
from coldrank.analysis.compare.runs import read_run
from coldrank.cli.main import main
from coldrank.configs import base as parts
from coldrank.configs import kuairand
from coldrank.data.batches import DataFolder
from coldrank.metrics.by_cohort import avc_groups
from coldrank.models.heads import Binary
from coldrank.modules import PersonalizedGate
from coldrank.modules.gate import personalized_gates
from coldrank.train import gates as watched
from coldrank.train.checks import as_arm
from coldrank.train.evaluate import evaluate
from coldrank.train.gates import GateWatch, gate_weights, unmoved
from coldrank.train.run import build
from coldrank.train.trainer import train

PARTS = ["attention", "mmoe", "towers"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return DataFolder.open(write_samples(tmp_path_factory.mktemp("data"), {"train": 600, "valid": 100, "test": 900}))


def poso(**fields):
    """Gates that move within ten steps."""
    config = parts.poso(sample_base())
    return with_optim(replace(config, model=replace(config.model, **fields)), dense={"gate_lr_scale": 30.0})


def test_the_range_of_gates_is_that_of_a_loop_over_rows(data, ranks, tmp_path, monkeypatch):
    """In float64, by the code's embedding of each row. The samples have 0 to 29 views."""
    config = poso()
    train(config, data, tmp_path, ranks, fresh=False, diff="")
    rows = {r["metric"]: r for r in json.loads((tmp_path / "summary.json").read_text())}
    assert [m for m in rows if m.startswith(watched.RANGE)] == [f"{watched.RANGE}{part}" for part in PARTS]
    run = build(config, data, ranks)
    run.load(tmp_path / "checkpoints", {})
    table = run.task.embeddings.state_dict()["ebc.embedding_bags.pc.weight"]
    code = (table.local_tensor() if isinstance(table, ShardedTensor) else table).double()
    views = pl.read_parquet(data.files(("test",))[0])["user_views"].to_numpy()
    low, high = (views == 0).sum(), (views >= 4).sum()
    assert min(low, high) >= watched.LEAST_ROWS and rows[f"{watched.RANGE}mmoe"]["n"] == low
    by_part: dict[str, list[float]] = {}
    for name, gate in personalized_gates(run.task.ranker).items():
        hidden, last = gate.hidden.double(), gate.output.double()
        # Buckets: missing, below 1, 1, 2, 3, 4 to 5, 6 and more (five edges).
        edges = np.array(config.features[-1].edges)
        first, best = (code[1 + np.searchsorted(edges, v, side="right")] for v in (0, 29))
        values = [2 * torch.sigmoid(last(torch.relu(hidden(at)))) for at in (first, best)]
        by_part.setdefault(name.split(".")[0], []).extend((values[0] - values[1]).abs().tolist())
    for part in PARTS:
        assert rows[f"{watched.RANGE}{part}"]["value"] == pytest.approx(np.mean(by_part[part]), rel=1e-4), part
        assert rows[f"{watched.RANGE}{part}"]["value"] > watched.LEAST_RANGE


def test_gates_of_other_codes_are_watched_by_the_views_of_users(data, ranks):
    config = parts.all_features(poso(gate_init=1.0))
    run = build(config, data, ranks)
    kept: dict[str, list[torch.Tensor]] = {}
    gates = personalized_gates(run.task.ranker)
    for name, gate in gates.items():
        gate.register_forward_hook(lambda _m, _a, out, name=name: kept.setdefault(name, []).append(out.double()))
    measured = {r["metric"]: r["value"] for r in evaluate(run, "test", 0, None)}
    views = pl.read_parquet(data.files(("test",))[0])["user_views"].to_numpy()
    group = avc_groups(views)
    first, last = group == 0, group == group.max()
    for part in PARTS:
        out = torch.cat([torch.cat(kept[name]) for name in gates if name.split(".")[0] == part], 1)
        expected = (out[first].mean(0) - out[last].mean(0)).abs().mean().item()
        assert measured[watched.RANGE + part] == pytest.approx(expected, rel=1e-6)
    assert not any(isinstance(h, GateWatch) for g in gates.values() for h in g._forward_hooks.values())


def test_a_constant_code_has_no_range_and_a_plain_ranker_no_gates(data, ranks):
    for config in (parts.constant_pc(poso()), sample_base()):
        rows = evaluate(build(config, data, ranks), "test", 0, None)
        assert not [r for r in rows if r["task"] == "all"]
        assert unmoved(rows) == ""


def test_gates_begin_as_far_from_rest_as_said(data, ranks):
    """`model.gate_init` moves the gates' last layers alone: every other weight is that of gates at rest."""
    at_rest, spread = (build(poso(gate_init=std), data, ranks).task.ranker for std in (0.0, 0.3))
    gates = personalized_gates(spread)
    ours = {f"{name}.output.weight" for name in gates}
    for name, p in at_rest.named_parameters():
        assert torch.equal(p, dict(spread.named_parameters())[name]) == (name not in ours), name
    drawn = torch.cat([gate.output.weight.flatten() for gate in gates.values()])
    assert drawn.std().item() == pytest.approx(0.3, rel=0.1)
    code = torch.randn(2, 5)
    gate = PersonalizedGate(5, 3)
    assert torch.equal(gate(code), torch.ones(2, 3))
    gate.spread(0.5)
    assert (gate(code)[0] != gate(code)[1]).all()


def test_the_way_from_rest_is_logged(data, ranks, tmp_path):
    train(poso(), data, tmp_path, ranks, fresh=False, diff="")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    ways = {p: [r["value"] for r in rows if r["metric"] == watched.WEIGHT + p] for p in PARTS}
    assert all(len(way) >= 2 and 0 < way[0] < way[-1] for way in ways.values())
    run = build(poso(), data, ranks)
    run.load(tmp_path / "checkpoints", {})
    last = gate_weights(run.task, 0)
    weights = [g.output.weight.flatten() for n, g in personalized_gates(run.task.ranker).items() if n[:4] == "mmoe"]
    assert {r["metric"]: r["value"] for r in last}[watched.WEIGHT + "mmoe"] == pytest.approx(ways["mmoe"][-1])
    assert torch.cat(weights).double().square().mean().sqrt().item() == pytest.approx(ways["mmoe"][-1])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    assert main(["simulate", "--events", "6000", "--days", "6", "--out", str(folder / "log")]) == 0
    assert main(["prepare", "kuairand", "--data", str(folder / "log"), "--out", str(folder / "data")]) == 0
    return DataFolder.open(folder / "data")


def test_readers_are_told_of_gates_that_did_not_move(prepared, ranks, tmp_path, capsys):
    """By train, evaluate, check and compare, which also says how well each arm's inputs tell new users."""
    data = prepared
    base = replace(tiny(kuairand.base()), tasks={"long_view": Binary()})
    base = replace(base, model=replace(base.model, tower_hidden=(8,)))  # of two units, both may be at rest
    moved = replace(parts.poso(base), name="moved")
    moved = replace(moved, model=replace(moved.model, gate_init=1.0))
    frozen = with_optim(parts.poso(base), dense={"gate_lr_scale": 1e-3})
    arms = {"base": base, "poso": frozen, "moved": moved, "blind": parts.without_avc(base)}
    for name, config in arms.items():
        train(config, data, tmp_path / name, ranks, fresh=False, diff="")
    told = capsys.readouterr()
    warned = [line for line in (told.out + told.err).splitlines() if "the gates hardly differ" in line]
    assert len(warned) == 1 and str(tmp_path / "poso") in warned[0] and "gate_lr_scale of 3 or 10" in warned[0]
    runs = [read_run(tmp_path / name, "test") for name in arms]
    controls = {c.arm: c for c in find_controls(runs, data.path)}
    assert controls["base"].newness.auc == 1 and controls["base"].newness.column == "user_views"
    assert controls["base_without_avc"].newness.auc < 0.95
    assert list(controls["poso"].gates) == PARTS and controls["base"].gates == {}
    assert [line.split(" hardly")[0] for line in unmoved_arms(list(controls.values()))] == ["The gates of poso"]
    assert all(c.newness is None for c in find_controls(runs, None))
    out = str(tmp_path / "comparison")
    command = ["compare", *(str(tmp_path / n) for n in arms), "--allow", "features", "--resamples", "20", "--out", out]
    assert main(command) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "The gates of poso hardly differ" in printed and "inputs tell new users (AUC)" in printed
    content = json.loads((tmp_path / "comparison" / "compare.json").read_text())
    assert [c["arm"] for c in content["controls"]] == [arm.name for arm in arms.values()]
    assert content["controls"][0]["newness"]["auc"] == 1
    page = (tmp_path / "comparison" / "report.html").read_text()
    assert "whether their gates move" in page and "gates have gone from rest" in page
    check = ["check", "--data", str(data.path), "--config"]
    main([*check, str(tmp_path / "poso" / "config.json")])
    assert "the gates hardly differ" in capsys.readouterr().out
    main([*check, str(tmp_path / "moved" / "config.json")])
    assert "the gates hardly differ" not in capsys.readouterr().out


def test_seeds_are_averaged_and_unknown_is_a_dash():
    lines = format_controls(
        [
            ArmControls(arm="lightgbm", newness=None, gates={}),
            ArmControls(arm="poso", newness=None, gates={"mmoe": 0.25}),
        ]
    )
    assert [line.split()[-1] for line in lines.splitlines()[2:4]] == ["–", "0.250"]
    assert format_controls([ArmControls(arm="lightgbm", newness=None, gates={})]) == ""


def test_the_length_of_a_history_tells_only_who_learns_positions(data):
    """Lists of 0 to 6 events say nothing of the random views here: what counts is that the length is read or not."""
    arm = as_arm(sample_base())
    assert not arm.reads_lengths
    with_positions = replace(sample_base(), model=replace(sample_base().model, positions=True))
    assert as_arm(with_positions).reads_lengths
    assert not as_arm(parts.without_avc(with_positions)).reads_lengths
