"""Managed tables: who holds a row, what a row that changes hands has left of the old id, and that a stop changes
nothing."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny import growing, with_optim
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

from coldrank.configs import base as arms
from coldrank.data.batches import batches
from coldrank.data.errors import UserError
from coldrank.data.read import SampleReader
from coldrank.models.features import Table
from coldrank.models.ids.evicting import EvictingMap
from coldrank.train.checks import validate
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.distributed.tables import table_of
from coldrank.train.evaluate import evaluate
from coldrank.train.ids.eviction import admit
from coldrank.train.run import Run, build
from coldrank.train.trainer import train

LARGEST = torch.iinfo(torch.int64).max


def evicting(rows: int, **fields: object) -> Table:
    return Table(name="t", rows=rows, dim=4, mapping="managed", **fields)


def score(eviction: str, step: int, reads: int, last: int) -> float:
    """What an id is worth at a step that was read so often, and last at step `last`."""
    return {"lru": last, "lfu": reads, "distance_lfu": reads / (step - last + 1)}[eviction]


@pytest.mark.parametrize("eviction", ["lru", "lfu", "distance_lfu"])
def test_those_hold_a_row_who_were_read_last_or_most(eviction):
    """Against a dictionary that keeps the best; of equals who is there already, then the smaller or more frequent."""
    rows, table, truth = 9, EvictingMap(evicting(9, eviction=eviction)), dict[int, tuple[int, int]]()
    generator = torch.Generator().manual_seed(0)
    held: dict[int, int] = {}
    renewed = 0
    for step in range(1, 60):
        batch = (torch.randn(12, generator=generator) * 8).long() - 2**62
        ids, counts = batch.unique(return_counts=True)
        fresh, missed = admit(table, ids, counts, counts)
        read = Counter(batch.tolist())
        before = truth
        known = [(x, (reads + read[x], step if x in read else last)) for x, (reads, last) in sorted(truth.items())]
        new = sorted(read.keys() - truth.keys(), key=lambda x: (-read[x], x))
        everyone = [*known, *((x, (read[x], step)) for x in new)]
        truth = dict(sorted(everyone, key=lambda pair: -score(eviction, step, *pair[1]))[: rows - 1])
        now = dict(zip(truth, table(torch.tensor(list(truth))).tolist(), strict=True))
        assert sorted(now.values()) == sorted(set(now.values())) and 1 <= min(now.values()) <= max(now.values()) < rows
        assert all(now[x] == held[x] for x in truth.keys() & held.keys()), "who stays keeps the row"
        assert sorted(fresh.tolist()) == sorted(now[x] for x in truth.keys() - before.keys())
        assert missed == sum(read[x] for x in read.keys() - truth.keys())
        lost = torch.tensor(sorted((before.keys() | read.keys()) - truth.keys()), dtype=torch.int64)
        assert not table(lost).any()
        held, renewed = now, renewed + len(fresh)
    assert table.size() == rows - 1 and table.steps == 59 and renewed > rows - 1


def test_the_largest_number_holds_no_row():
    table = EvictingMap(evicting(4))
    ids = torch.tensor([-LARGEST - 1, 0, LARGEST])
    admit(table, ids, torch.ones(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
    assert table.size() == 2
    rows = table(ids)
    assert rows[2] == 0 and 0 < rows[0] != rows[1] > 0


def of_table(run: Run, name: str) -> dict[str, torch.Tensor]:
    """Weights [rows, dim] and what the optimizer holds of each row, [rows, ..], of one rank."""
    found = {}
    states = run.optimizers.all.state_dict()["state"].items()
    for key, value in [
        *((k, v) for k, v in run.model.state_dict().items() if table_of(k) == name),
        *((f"{k} {n}", v) for k, of in states if table_of(k) == name for n, v in of.items() if n != "step"),
    ]:
        parts = [s.tensor for s in value.local_shards()] if isinstance(value, ShardedTensor) else [value]
        found[key] = torch.cat([p.unsqueeze(1) if p.dim() == 1 else p for p in parts], 1).clone()
    return found


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad"])
@pytest.mark.parametrize(
    "sharding",
    [
        ShardingConfig(default="table_wise"),
        ShardingConfig(default="column_wise", column_width=4),
        ShardingConfig(default="data_parallel"),
        ShardingConfig(default="table_wise", sequences="unpooled"),
        ShardingConfig(default="column_wise", column_width=4, sequences="unpooled"),
    ],
)
def test_a_row_that_changes_hands_keeps_nothing(fitted, data, sharding, optimizer):
    config = replace(growing(33, "managed"), sharding=sharding)
    run = fitted(with_optim(config, tables={"kind": optimizer}))
    with batches(SampleReader(data.files(("train",)), run.make.columns(), 50), run.make, 2) as source:
        batch = next(iter(source))
        run.dynamic_ids(batch)
        run.optimizers.begin_step(0, 1)
        run.model(batch).loss.backward()
        run.optimizers.end_step()
    before = of_table(run, "item")
    rows = torch.tensor([3, 1, 20])
    others = [r for r in range(33) if r not in rows]
    assert len(before) == 2 and all(value[rows].any(1).all() for value in before.values())
    run.dynamic_ids.renew("item", rows, 7)
    after = of_table(run, "item")
    for name, value in after.items():
        assert torch.equal(value[others], before[name][others])
        if name.endswith(".weight"):
            assert (value[rows] != before[name][rows]).all()
            assert value[rows].std() == pytest.approx(config.optim.tables.init, rel=0.5)
        else:
            assert not value[rows].any()
    run.dynamic_ids.renew("item", rows, 8)
    assert (weight_of(of_table(run, "item"))[rows] != weight_of(after)[rows]).all()


def weight_of(found: dict[str, torch.Tensor]) -> torch.Tensor:
    (value,) = [v for name, v in found.items() if name.endswith(".item.weight")]
    return value


def full(steps: int):
    """Tables with fewer rows than there are ids, but with more than a batch has."""
    config = arms.poso(growing(33, "managed"))
    config = replace(config, data=replace(config.data, batch_size=8, prefetch=4))
    return replace(config, train=replace(config.train, steps=steps, checkpoint_every=4, keep_checkpoints=9))


def ended(config, data, out, ranks):
    train(config, data, out, ranks, fresh=False, diff="")
    facts = json.loads((out / "run.json").read_text())["growing_tables"]
    state = {p.name: p.read_bytes() for p in (out / f"checkpoints/step-{config.train.steps}").glob("*.distcp")}
    return facts, state, (out / "predictions-test.parquet").read_bytes()


def test_a_run_that_was_stopped_ends_as_one_that_was_not(data, ranks, tmp_path, capsys):
    whole = ended(full(20), data, tmp_path / "whole", ranks)
    assert whole[0]["user"]["evicted"] > 0 and whole[0]["user"]["ids"] == 32 and whole[0]["tag"]["evicted"] == 0
    assert capsys.readouterr().out.count("table 'user' is full: from here on new ids take the rows of others") == 1
    ended(full(9), data, tmp_path / "cut", ranks)
    shutil.rmtree(tmp_path / "cut/checkpoints/step-9")  # killed after the checkpoint of step 8
    assert ended(full(20), data, tmp_path / "cut", ranks) == whole


def test_evaluation_does_not_change_who_holds_a_row(data, ranks, tmp_path):
    config = full(6)
    ended(config, data, tmp_path / "run", ranks)
    run = build(config, data, ranks)
    run.load(tmp_path / "run/checkpoints", {})
    before = {name: value.clone() for name, value in run.encoder.state_dict().items()}
    evaluate(run, "test", 6, None)
    assert all(torch.equal(value, before[name]) for name, value in run.encoder.state_dict().items())
    assert before["maps.item.steps"].item() == 6


def test_what_managed_tables_leave_no_room_for_is_refused():
    config = full(1)
    with pytest.raises(UserError, match=r"pipeline='on': rows of managed tables \(user, item, tag\) .*pipeline=auto"):
        validate(replace(config, train=replace(config.train, pipeline="on")))
    tables = tuple(replace(t, mapping="growing", eviction="lfu") for t in config.tables)
    with pytest.raises(UserError, match="table 'user': eviction='lfu' is for mapping 'managed'"):
        validate(replace(config, tables=tables))
