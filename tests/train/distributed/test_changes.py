"""A checkpoint, loaded under another plan."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import sample_base
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed.checkpoint.filesystem import FileSystemReader

from coldrank.data.errors import UserError
from coldrank.serving.export import trained as exported
from coldrank.train.config import RunConfig
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.distributed.tables import table_of
from coldrank.train.run import Run, build
from coldrank.train.trainer import train
from coldrank.train.warm_start import warm_start

UNPOOLED = ShardingConfig(sequences="unpooled")
COLUMNS = ShardingConfig(default="row_wise", tables={"item": "column_wise"}, column_width=4)


def config(sharding: ShardingConfig) -> RunConfig:
    base = sample_base()
    return replace(base, sharding=sharding, train=replace(base.train, steps=4))


@pytest.fixture(scope="module")
def trained(data, ranks, tmp_path_factory) -> Path:
    """A run with whole tables."""
    out = tmp_path_factory.mktemp("run") / "run"
    train(config(ShardingConfig()), data, out, ranks, fresh=True, diff="")
    return out


def loaded(sharding: ShardingConfig, out: Path, data, ranks) -> Run:
    run = build(config(sharding), data, ranks)
    run.load(out / "checkpoints", {})
    return run


def tensors(run: Run) -> dict[str, torch.Tensor]:
    """Table weights and the sums of row-wise Adagrad, by table; of one rank, that has them whole."""
    found = {f"{table_of(n)}.weight": v for n, v in run.model.state_dict().items() if table_of(n)}
    for state in run.optimizers.all.state_dict()["state"].values():
        found |= {name: value for name, value in state.items() if name.endswith(".momentum1")}
    return {n: v.local_shards()[0].tensor if isinstance(v, ShardedTensor) else v for n, v in found.items()}


@pytest.fixture(scope="module")
def trained_unpooled(data, ranks, tmp_path_factory) -> Path:
    """A run whose histories are read un-pooled."""
    out = tmp_path_factory.mktemp("run") / "unpooled"
    train(config(UNPOOLED), data, out, ranks, fresh=True, diff="")
    return out


@pytest.mark.parametrize("begun", ["trained", "trained_unpooled"])
@pytest.mark.parametrize(
    "sharding", [ShardingConfig(default="row_wise"), ShardingConfig(default="data_parallel"), UNPOOLED]
)
def test_the_state_is_the_same_under_another_plan(data, ranks, begun, sharding, request):
    trained = request.getfixturevalue(begun)
    whole = tensors(loaded(ShardingConfig(), trained, data, ranks))
    other = tensors(loaded(sharding, trained, data, ranks))
    assert whole.keys() == other.keys()
    for name, value in whole.items():
        assert torch.equal(other[name], value), name
        assert value.any() or name.startswith("pc."), name


def names(out: Path) -> set[str]:
    found: set[str] = set(FileSystemReader(out / "checkpoints" / "step-4").read_metadata().state_dict_metadata)
    return found


def test_a_checkpoint_has_one_name_for_a_table(trained, trained_unpooled):
    """That of an EmbeddingBagCollection, which older checkpoints have, whatever holds it."""
    assert names(trained_unpooled) == names(trained)
    assert "model.embeddings.ebc.embedding_bags.item.weight" in names(trained)
    shapes = [
        json.loads((out / "checkpoints/step-4/progress.json").read_text())["shapes"]
        for out in (trained, trained_unpooled)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.tried("ranks", "a run that read histories un-pooled, exported or begun with", "its tables, as in bags")
def test_an_unpooled_run_is_exported_and_begun_with(data, ranks, trained_unpooled, monkeypatch):
    weights = tensors(loaded(ShardingConfig(), trained_unpooled, data, ranks))
    monkeypatch.setattr(exported, "process_group", lambda: nullcontext(ranks))
    held = exported.load_trained(trained_unpooled).task.embeddings.table_modules
    warm = config(UNPOOLED)
    run = build(replace(warm, train=replace(warm.train, warm_start=str(trained_unpooled))), data, ranks)
    report = warm_start(run)
    assert "model.embeddings.ebc.embedding_bags.item.weight" in report.loaded and not report.left
    begun = tensors(run)
    for table in ("user", "item", "tag", "hist_signals"):
        assert torch.equal(held[table].weight, weights[f"{table}.weight"])
        assert torch.equal(begun[f"{table}.weight"], weights[f"{table}.weight"])


def test_a_run_goes_on_under_another_plan(data, ranks, trained, tmp_path):
    """To the losses that it would have had."""
    ends = []
    for sharding in (ShardingConfig(), ShardingConfig(default="data_parallel"), UNPOOLED):
        out = tmp_path / f"{sharding.default} {sharding.sequences}"
        train(config(ShardingConfig()), data, out, ranks, fresh=True, diff="")
        longer = replace(config(sharding), train=replace(sample_base().train, steps=12))
        ends.append(
            [r["value"] for r in train(longer, data, out, ranks, fresh=False, diff="") if r["metric"] == "logloss"]
        )
    assert ends[1] == pytest.approx(ends[0], rel=1e-6) and ends[2] == pytest.approx(ends[0], rel=1e-6)


def test_to_columns_and_back_is_refused(data, ranks, trained, tmp_path, capsys):
    said = r"table item: the optimizer's sums are of {} and this plan's are of {}; .*sharding.tables.item"
    with pytest.raises(UserError, match=said.format("whole rows", "2 column shards")):
        loaded(COLUMNS, trained, data, ranks)
    train(config(COLUMNS), data, tmp_path / "run", ranks, fresh=True, diff="")
    loaded(COLUMNS, tmp_path / "run", data, ranks)
    with pytest.raises(UserError, match=said.format("2 column shards", "whole rows")):
        loaded(ShardingConfig(), tmp_path / "run", data, ranks)
