"""A run that begins with another run's weights: what fits is loaded with its meaning, the rest is left and told."""

import json
from dataclasses import replace

import pytest
import torch
from tiny import sample_base

from coldrank.configs import base as arms
from coldrank.data.errors import UserError
from coldrank.data.fit import fit_encoder
from coldrank.models.features import Feature
from coldrank.modules import PosoMultiheadAttention
from coldrank.train.run import build
from coldrank.train.trainer import train
from coldrank.train.warm_start import warm_start


@pytest.fixture(scope="module")
def donor(data, ranks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("donor") / "run"
    train(sample_base(), data, folder, ranks, fresh=False, diff="")
    return folder


def from_donor(config, donor, rename=None):
    return replace(config, train=replace(config.train, warm_start=str(donor), warm_rename=rename or {}))


def started(config, data, ranks):
    """A run before its first step, and the report."""
    run = build(config, data, ranks)
    fit_encoder(run.encoder, data.files(config.data.fit))
    return run, warm_start(run)


def test_the_same_arm_takes_everything_and_scores_alike(data, ranks, donor):
    config = from_donor(replace(sample_base(), seed=9), donor)
    run, report = started(config, data, ranks)
    assert not report.left and not report.moved and not report.unused
    other = build(replace(sample_base(), seed=9), data, ranks)
    other.load(donor / "checkpoints", {})
    for part in ("model", "encoder"):
        for name, value in run.state[part].items():
            theirs = other.state[part][name]
            mine = value.local_shards()[0].tensor if hasattr(value, "local_shards") else value
            theirs = theirs.local_shards()[0].tensor if hasattr(theirs, "local_shards") else theirs
            assert torch.equal(mine, theirs), name


def test_poso_from_its_base_begins_as_the_base_but_for_its_gates(data, ranks, donor):
    config = from_donor(arms.poso(sample_base()), donor)
    run, report = started(config, data, ranks)
    assert all("gate" in name or ".pc" in name for name in report.left), report.left
    assert all(why == "not in the checkpoint" for why in report.left.values())
    (name,) = report.moved
    assert name.endswith(".value") and report.moved[name] == f"folds that sum to {name}"
    (attention,) = [m for m in run.model.modules() if isinstance(m, PosoMultiheadAttention)]
    base = build(sample_base(), data, ranks)
    base.load(donor / "checkpoints", {})
    plain = base.state["model"][name.removeprefix("model.")]
    folds = attention.value.detach().unflatten(2, (attention.value_folds, -1))
    torch.testing.assert_close(folds.sum(2), plain)
    assert folds.std(2).min() > 0
    assert str(report).count("\n  ") == len(report.loaded) + len(report.moved) + len(report.left)


def test_other_inputs_leave_the_dense_part_and_take_the_tables(data, ranks, donor):
    base = sample_base()
    more = Feature(name="again", column="item_views", role="context", kind="bucket", edges=(1, 3), dim=4)
    run, report = started(from_donor(replace(base, features=(*base.features, more)), donor), data, ranks)
    assert report.left["model.ranker.mmoe.task_gate.weight"].startswith("the inputs differ (+again[4]")
    assert "model.embeddings.ebc.embedding_bags.item.weight" in report.loaded
    assert report.left["model.embeddings.ebc.embedding_bags.again.weight"] == "not in the checkpoint"
    assert run.encoder.features.table("again").rows == 4


def test_a_table_of_another_meaning_is_left_with_its_vocabulary(data, ranks, donor):
    base = sample_base()
    tables = tuple(replace(t, mapping="hash", min_count=1) if t.name == "user" else t for t in base.tables)
    _, report = started(from_donor(replace(base, tables=tables), donor), data, ranks)
    assert report.left["model.embeddings.ebc.embedding_bags.user.weight"].startswith("the table is declared otherwise")
    assert "encoder.maps.user.ids" in report.unused


def test_renamed_tables_are_found(data, ranks, donor):
    base = sample_base()
    tables = tuple(replace(t, name="film") if t.name == "item" else t for t in base.tables)
    features = tuple(replace(f, table="film") if f.table == "item" else f for f in base.features)
    config = replace(base, tables=tables, features=features)
    _, report = started(from_donor(config, donor, {"item": "film"}), data, ranks)
    assert report.moved["model.embeddings.ebc.embedding_bags.film.weight"].endswith(".item.weight")
    assert not report.left and not report.unused
    with pytest.raises(UserError, match=r"train.warm_rename: .* has no 'itm'"):
        started(from_donor(config, donor, {"itm": "film"}), data, ranks)


def test_a_run_begins_there_and_says_so(data, ranks, donor, tmp_path):
    config = from_donor(arms.poso(sample_base()), donor)
    train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    text = (tmp_path / "run/warm_start.txt").read_text()
    assert text.startswith("weights of ") and "left as initialised:" in text
    assert json.loads((tmp_path / "run/config.json").read_text())["train"]["warm_start"] == str(donor)


def test_what_is_no_run_or_damaged_is_refused(data, ranks, donor, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        started(from_donor(sample_base(), tmp_path), data, ranks)
    (tmp_path / "config.json").write_text((donor / "config.json").read_text())
    with pytest.raises(UserError, match="no checkpoint in it"):
        started(from_donor(sample_base(), tmp_path), data, ranks)
