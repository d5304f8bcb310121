"""What `coldrank explain` measures, against values computed by hand or by the modules themselves."""

import json
import re
import xml.etree.ElementTree as ET
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from tiny import sample_base
from torch import nn

from coldrank.analysis.explain.attention import Attention, bands
from coldrank.analysis.explain.changes import Changes
from coldrank.analysis.explain.experts import ExpertUse
from coldrank.analysis.explain.gates import GateOutputs, layouts
from coldrank.analysis.explain.masks import masked, masks_of
from coldrank.analysis.explain.measure import measure
from coldrank.analysis.explain.record import record
from coldrank.cli.main import main
from coldrank.configs import base as arms
from coldrank.data.batches import DataFolder
from coldrank.data.fit import fit_encoder
from coldrank.data.read import take
from coldrank.data.sample import Sample, draw
from coldrank.models.features import Feature
from coldrank.models.heads import Binary
from coldrank.modules import PosoMultiheadAttention
from coldrank.modules.gate import PersonalizedGate
from coldrank.train.config import RunConfig
from coldrank.train.evaluate import evaluation_reader
from coldrank.train.gates import Buckets
from coldrank.train.run import Run, build
from coldrank.train.trainer import train

COHORTS = {"all": torch.tensor([True, True]), "new_user": torch.tensor([True, False])}


def built(config: RunConfig, data: DataFolder, ranks, *, random_gates: bool = False) -> Run:
    """An untrained run; with random gates these no longer stand at 1."""
    run = build(config, data, ranks)
    fit_encoder(run.encoder, data.files(config.data.fit))
    run.model.eval()
    if random_gates:
        torch.manual_seed(0)
        for module in run.model.modules():
            if isinstance(module, PersonalizedGate):
                nn.init.normal_(module.output.weight)
                nn.init.normal_(module.output.bias)
    return run


def sample_of(run: Run, rows: int = 150):
    return draw(evaluation_reader(run.make, run.data, "test", run.config, run.ranks), rows, 0)


@pytest.fixture(scope="module")
def poso(data, ranks) -> Run:
    return built(arms.poso(sample_base()), data, ranks, random_gates=True)


def test_rows_are_those_of_the_split(poso, data):
    sample, again = sample_of(poso), sample_of(poso)
    frame = pl.read_parquet(data.files(("test",))).sort("time")
    drawn = frame.filter(pl.col("time").is_in(sample.raw["time"].tolist()))
    assert len(sample) == drawn.height == 150
    assert drawn["user_views"].to_list() == sample.raw["user_views"].tolist()
    values, offsets = sample.raw["hist_item_id"]
    assert drawn["hist_item_id"].to_list() == [part.tolist() for part in np.split(values, offsets[1:-1])]
    assert sorted(sample.partner) == list(range(150))
    assert np.array_equal(sample.partner, again.partner) and np.array_equal(sample.raw["time"], again.raw["time"])
    assert len(sample_of(poso, 10_000)) == 200


@pytest.mark.parametrize("name", ["rate_user_long_view", "user_id", "item_tags", "history"])
def test_a_mask_swaps_its_columns_and_no_other(name, poso):
    sample = sample_of(poso)
    columns = ["hist_item_id", "hist_long_view", "hist_like"] if name == "history" else [name]
    (mask,) = [m for m in masks_of(poso.config, poso.encoder.features, [name]) if m.name == name]
    raw, batch, other = next(sample.batches(poso.make))
    theirs = next(replace_rows(sample).batches(poso.make))[0]
    expected = poso.make(raw | {column: theirs[column] for column in columns})
    swapped = masked(batch, other, mask, poso.encoder.features)
    assert torch.equal(swapped.sparse.values(), expected.sparse.values())
    assert torch.equal(swapped.sparse.lengths(), expected.sparse.lengths())
    assert torch.equal(swapped.dense, expected.dense)
    assert torch.equal(swapped.sequence_lengths, expected.sequence_lengths)
    assert not torch.equal(
        record(task_of(poso), swapped).layers["logits"], record(task_of(poso), batch).layers["logits"]
    )


def replace_rows(sample):
    """The sample with every row in the place of the one whose partner it is."""
    return Sample({name: take(column, sample.partner) for name, column in sample.raw.items()}, sample.partner)


def task_of(run: Run):
    return run.model.module


def test_masks_of_the_code(poso, data, ranks):
    masks = {m.name: m.features for m in masks_of(poso.config, poso.encoder.features, [])}
    inputs = ("user_views", "user_views_bucket")
    assert masks["pc_columns"] == (*inputs, "pc")
    assert masks["pc_columns_in_inputs"] == inputs and masks["pc_columns_in_code"] == ("pc",)
    base = built(sample_base(), data, ranks)
    masks = masks_of(base.config, base.encoder.features, [])
    assert [m.name for m in masks] == ["pc_columns", "pc_columns_in_inputs", "user_id", "item_id", "history"]
    assert masks[0].features == inputs, "the base declares the code, but has no gate that reads it"


def test_layers_are_what_the_modules_give(poso):
    task = task_of(poso)
    _, batch, _ = next(sample_of(poso).batches(poso.make))
    recording = record(task, batch)
    layers = recording.layers
    assert list(layers) == ["attention history", "experts 1", "experts 2", "mixture", "towers 1", "logits"]
    with torch.no_grad():
        assert torch.equal(layers["logits"], task(batch).logits)
        assert torch.equal(task.ranker.mmoe(*recording.mixture), layers["mixture"])
        weights = task.ranker.mmoe.expert_weights(*recording.mixture)
        torch.testing.assert_close(torch.einsum("bte,bed->btd", weights, layers["experts 2"]), layers["mixture"])
        torch.testing.assert_close(task.ranker.towers.logit(layers["towers 1"]).squeeze(-1), layers["logits"])
        attention = task.ranker.attention["history"]
        assert torch.equal(attention(*recording.attention["history"]), layers["attention history"])
        for name, gates in recording.gates.items():
            assert torch.equal(task.ranker.get_submodule(name)(task.ranker.inputs.pc(task.embeddings(batch))), gates)
    assert len(recording.gates) == 4 and not any(m._forward_hooks for m in task.modules()), "hooks are taken off"


def test_gates_by_bucket_are_the_gates_of_its_embedding(poso):
    task, tasks = task_of(poso), list(poso.config.tasks)
    gates = GateOutputs(Buckets(poso.config, poso.encoder), layouts(task.ranker, tasks))
    sample = sample_of(poso)
    for _, batch, _ in sample.batches(poso.make):
        gates.add(batch, record(task, batch).gates)
    figures = gates.figures()
    assert figures["column"] == "user_views" and figures["is_code"]
    assert sum(b["rows"] for b in figures["buckets"]) == len(sample)
    starts = [b["from"] for b in figures["buckets"]]
    assert starts == ["<1", *map(str, arms.AVC_EDGES[:5])]
    views = sample.raw["user_views"]
    assert figures["buckets"][1]["rows"] == int((views == 1).sum())
    row = int(np.flatnonzero(views == 1)[0])
    with torch.no_grad():
        code = task.ranker.inputs.pc(task.embeddings(next(sample.batches(poso.make))[1]))[row : row + 1]
        towers = task.ranker.towers.gates[0](code).view(len(tasks), -1)
        values = task.ranker.attention["history"].value_gate(code).view(5, 4)  # heads, folds
    by_name = {gate["name"]: gate for gate in figures["gates"]}
    assert set(by_name) == {"attention.history.value_gate", "attention.history.key_gate", "mmoe.gate", "towers.gates.0"}
    lines = by_name["towers.gates.0"]["panels"][0]["lines"]
    assert [line["name"] for line in lines] == tasks
    assert [line["mean"][1] for line in lines] == pytest.approx(towers.mean(1).tolist(), abs=1e-6)
    assert [line["spread"][1] for line in lines] == pytest.approx(towers.std(1, correction=0).tolist(), abs=1e-6)
    for head, panel in enumerate(by_name["attention.history.value_gate"]["panels"]):
        assert panel["name"] == f"head {head + 1}"
        assert [line["mean"][1] for line in panel["lines"]] == pytest.approx(values[head].tolist(), abs=1e-6)


@pytest.mark.parametrize("fold", ["qkv", "kv", "v", "none"])
def test_layout_follows_the_view_of_the_attention(fold, data, ranks):
    config = arms.poso_mha(sample_base())
    folds = {} if fold == "none" else {"mha_folds": 3}
    run = built(replace(config, model=replace(config.model, mha_fold=fold, **folds)), data, ranks)
    attention = task_of(run).ranker.attention["history"]
    assert isinstance(attention, PosoMultiheadAttention)
    layout = layouts(task_of(run).ranker, ["a"])["attention.history.value_gate"]
    shape = (attention.key_folds, attention.heads, attention.value_folds, attention.gate_width)
    gates = torch.arange(float(np.prod(shape))).unsqueeze(0)
    arranged, viewed = layout.arrange(gates)[0], gates.view(shape)
    folds = 1 if fold == "none" else 3
    assert arranged.shape == (attention.heads, folds, attention.gate_width)
    for head in range(attention.heads):
        assert torch.equal(arranged[head], viewed[:, head].reshape(folds, -1))


def test_gates_without_a_bucketized_code_are_shown_by_views(data, ranks):
    run = built(arms.constant_pc(arms.poso(sample_base())), data, ranks)
    figures = measure(run, sample_of(run), masks_of(run.config, run.encoder.features, []), run.config.cohorts)["gates"]
    assert not figures["is_code"] and [b["from"] for b in figures["buckets"]] == [*map(str, range(12)), "16"]
    for gate in figures["gates"]:
        for panel in gate["panels"]:
            for line in panel["lines"]:
                assert line["mean"] == pytest.approx([1.0] * 13), "an untrained gate of a constant stands at 1"


def test_change_by_hand():
    changes = Changes({"a": Binary()}, torch.sigmoid)
    plain = {"x": torch.tensor([[0.0, 0.0], [2.0, 4.0]]), "logits": torch.tensor([[0.0], [0.0]])}
    shifted = {"x": torch.tensor([[0.0, 3.0], [2.0, 4.0]]), "logits": torch.tensor([[0.0], [torch.inf]])}
    changes.add_plain(plain, COHORTS)
    changes.add_masked("m", plain, shifted, COHORTS)
    rows = {(r["layer"], r["cohort"]): r for r in changes.rows()}
    # The variances are 1 and 4; one row of two moved by 3.
    assert rows["x", "all"]["change"] == pytest.approx((9 / 2 / (2 * 5)) ** 0.5)
    assert rows["x", "all"]["relative"] == pytest.approx((9 / 20) ** 0.5)
    assert rows["x", "new_user"]["change"] == pytest.approx((9 / (2 * 5)) ** 0.5)
    assert rows["x", "new_user"]["relative"] is None and rows["x", "new_user"]["rows"] == 1
    assert rows["logits", "all"]["change"] is None, "a constant layer has no spread to measure by"
    assert {(s["cohort"], s["points"]) for s in changes.shifts()} == {("all", 25.0), ("new_user", 0.0)}


def test_all_inputs_masked_is_a_change_of_one(poso):
    features = poso.encoder.features
    (mask,) = masks_of(poso.config, features, [])[-1:]
    plain = tuple(f.name for f in features.features if f.role != "sequence")
    sample = sample_of(poso)
    figures = measure(poso, sample, [replace(mask, name="everything", features=plain)], poso.config.cohorts)
    changes = [row["change"] for row in figures["changes"] if row["cohort"] == "all"]
    assert changes == pytest.approx([1.0] * len(figures["layers"]), abs=0.15)


def test_neutral_gates_let_nothing_of_the_code_through(data, ranks):
    run = built(arms.poso(sample_base()), data, ranks)
    masks = masks_of(run.config, run.encoder.features, [])
    rows = measure(run, sample_of(run), masks, run.config.cohorts)["changes"]
    by_mask = {m.name: [r["change"] for r in rows if r["mask"] == m.name] for m in masks}
    assert by_mask["pc_columns_in_code"] == [0.0] * len(by_mask["pc_columns_in_code"])
    assert by_mask["pc_columns"] == by_mask["pc_columns_in_inputs"] and min(by_mask["pc_columns"][1:]) >= 0
    assert max(by_mask["user_id"]) > 0.001


def test_attention_by_hand():
    assert bands(6) == [(1, 1), (2, 3), (4, 6)] and bands(1) == [(1, 1)]
    feature = Feature(
        name="signals", role="sequence", kind="signals", columns=("like",), dim=2, sequence="history", length=3
    )
    attention = Attention((feature,), positions=True)
    weights = torch.tensor([[[0.5, 0.3, 0.2]], [[0.9, 0.1, 0.0]], [[1.0, 0.0, 0.0]]])
    raw = {"like": (np.array([1, 0, -1, 0, 1]), np.array([0, 3, 5, 5]))}
    everyone = {"all": torch.tensor([True, True, True])}
    attention.add(weights, torch.tensor([3, 2, 0]), raw, everyone)
    figures = attention.figures()
    (band,) = figures["by_position"]
    assert band["events"] == [2, 3] and band["rows"] == 2, "the empty history is left out"
    assert band["weight"][0] == pytest.approx([0.7, 0.2, 0.2]), "one row has a third event"
    assert band["to_even"][0] == pytest.approx([(1.5 + 1.8) / 2, (0.9 + 0.2) / 2, 0.6])
    (signal,) = figures["by_signal"]
    assert signal["rows"] == 2 and signal["events"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert signal["weight"] == pytest.approx([(0.5 + 0.1) / 2])


def test_experts_by_hand():
    experts = ExpertUse(["a"])
    softmax = torch.tensor([[[0.5, 0.5]], [[0.1, 0.9]]])
    experts.add(softmax, softmax * torch.tensor([2.0, 1.0]), COHORTS)
    (everyone, new) = experts.figures()
    assert everyone["softmax"] == pytest.approx([0.3, 0.7]) and everyone["effective"] == pytest.approx([0.6, 0.7])
    assert new["rows"] == 1 and new["effective"] == pytest.approx([1.0, 0.5])


@pytest.fixture(scope="module")
def run_folders(data, ranks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for arm in (sample_base(), arms.poso(sample_base())):
        short = replace(arm, train=replace(arm.train, steps=4))
        train(short, data, folder / arm.name, ranks, fresh=False, diff="")
    return folder


@pytest.fixture
def explain(run_folders, data, ranks, tmp_path, monkeypatch, capsys):
    """Calls the command on run folders; inside the test's own process group."""
    monkeypatch.setattr("coldrank.train.distributed.ranks.process_group", lambda: nullcontext(ranks))

    def call(*arguments: str) -> tuple[int, str]:
        resolved = [str(run_folders / a) if a in ("base", "poso") else a for a in arguments]
        code = main(["explain", *resolved, "--data", str(data.path), "--out", str(tmp_path / "out")])
        return code, capsys.readouterr().err

    return call


def test_two_runs_side_by_side(explain, tmp_path):
    assert explain("poso", "--against", "base", "--rows", "120")[0] == 0
    content = json.loads((tmp_path / "out/explain.json").read_text())
    assert [run["arm"] for run in content["runs"]] == ["base", "poso"] and content["rows"] == 120
    base, poso = content["runs"]
    assert base["gates"] is None and poso["gates"]["buckets"]
    plain = [row["effective"] == row["softmax"] for row in base["experts"]]
    assert all(plain) and {row["task"] for row in poso["experts"]} == {"long_view", "like"}
    assert all(abs(sum(row["softmax"]) - 1) < 1e-5 for row in poso["experts"])
    page = (tmp_path / "out/explain.html").read_text()
    pictures = sorted((tmp_path / "out/pictures").iterdir())
    assert page.count('role="img"') == len(pictures) > 10
    assert not re.search(r"https?:|url\((?!#)|src=|@import|<script", page), "it loads nothing"
    assert "no gates to draw" in page
    root = [ET.parse(path).getroot().tag for path in pictures]
    assert set(root) == {"{http://www.w3.org/2000/svg}svg"}
    assert not any("var(--" in path.read_text() for path in pictures), "files of their own have colours of their own"


def test_a_run_without_personalized_parts_and_a_chosen_mask(explain, tmp_path):
    assert explain("base", "--mask", "user_gap_h", "--mask", "history")[0] == 0
    (run,) = json.loads((tmp_path / "out/explain.json").read_text())["runs"]
    assert [mask["name"] for mask in run["masks"]] == ["pc_columns", "pc_columns_in_inputs", "user_gap_h", "history"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("base", "--mask", "country"), "--mask country: no input of base; there are history, user_id, "),
        (("base", "--mask", "hist_like"), "--mask hist_like: part of sequence 'history', which is masked as a whole"),
        (("base", "--rows", "1"), "--rows 1: expected at least 2"),
        (("base", "--split", "later"), "no split 'later'"),
        (("missing",), "missing: no config.json in it"),
    ],
)
def test_mistakes_are_one_line(arguments, message, explain, tmp_path):
    code, error = explain(*arguments)
    last = error.strip().splitlines()[-1]
    assert code == 2 and last.startswith("coldrank explain: ") and message in last
    assert not (tmp_path / "out").exists()
