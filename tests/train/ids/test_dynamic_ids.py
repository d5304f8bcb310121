"""Tables that grow while training: which rows ids get, and that neither reading ahead nor a stop changes them."""

import itertools
import json
import shutil
from dataclasses import replace

import pytest
import torch
from periods import write_periods
from tiny import growing

from coldrank.configs import base as arms
from coldrank.data.batches import DataFolder, as_tensors
from coldrank.data.read import SampleReader
from coldrank.train.ids.dynamic import DynamicIds
from coldrank.train.run import build
from coldrank.train.trainer import train


def run(config, data, out, ranks):
    train(config, data, out, ranks, fresh=False, diff="")
    metrics = [x for x in (out / "metrics.jsonl").read_text().splitlines() if "samples_per_second" not in x]
    return metrics[-1], (out / "predictions-test.parquet").read_bytes(), json.loads((out / "run.json").read_text())


def raws(config, data, made):
    columns = made.make.columns()
    options = {"shuffle_rows": config.data.shuffle_rows, "in_time": False, "seed": config.seed}
    reader = SampleReader(data.files(config.data.fit), columns, config.data.batch_size, **options)
    return [raw for epoch in (0, 1) for raw in reader.epoch(epoch)]


def ids_of(raw, length: int = 6) -> dict[str, set[int]]:
    """Ids that the features of a table read: past items beyond the longest history are not among them."""
    items, ends = raw["hist_item_id"]
    past = [items[low:high][:length] for low, high in itertools.pairwise(ends)]
    return {
        "user": set(raw["user_id"].tolist()),
        "item": set(raw["item_id"].tolist()).union(*(p.tolist() for p in past)),
        "tag": set(raw["item_tags"][0].tolist()),
    }


def test_rows_are_those_of_a_dictionary_that_grows_batch_by_batch(data, ranks):
    config = growing()
    made = build(config, data, ranks)
    truth: dict[str, dict[int, int]] = {t.name: {} for t in config.tables}
    read = raws(config, data, made)
    batches = [made.make(raw) for raw in read]  # all of them read ahead: no id has a row yet
    for raw, batch in zip(read, batches, strict=True):
        grown = made.dynamic_ids(batch)
        for name, ids in ids_of(raw).items():
            new = sorted(ids - truth[name].keys())
            table = made.dynamic_ids.maps[name]
            rows = [1 + (len(truth[name]) + i) * table.stride % table.places for i in range(len(new))]
            assert grown[name].rows.tolist() == rows
            truth[name] |= dict(zip(new, rows, strict=True))
            assert grown[name].size == len(truth[name]) and grown[name].missed == 0
        values = batch.sparse.to_dict()
        assert values["user_id"].values().tolist() == [truth["user"][x] for x in raw["user_id"].tolist()]
        assert values["item_tags"].values().tolist() == [truth["tag"][x] for x in raw["item_tags"][0].tolist()]
        third = [truth["item"][p[2]] for p in past_items(raw) if len(p) > 2]
        assert values["hist_item_id.2"].values().tolist() == third
    assert len(truth["user"]) == 40 and len(truth["item"]) == 60
    raw = {**read[0], "user_id": read[0]["user_id"] + 2**60}
    unseen, sizes = made.make(raw), {n: int(t.size) for n, t in made.dynamic_ids.maps.items()}
    assert not unseen.sparse.to_dict()["user_id"].values().any()
    assert sizes == {n: int(t.size) for n, t in made.dynamic_ids.maps.items()}, "encoding alone does not grow"
    values, *_ = made.encoder(as_tensors(read[0]))
    assert torch.equal(values, batches[0].sparse.values())


def past_items(raw):
    items, ends = raw["hist_item_id"]
    return [items[low:high].tolist() for low, high in itertools.pairwise(ends)]


@pytest.mark.parametrize("pipeline", ["off", "on"])
def test_a_run_that_was_stopped_has_the_rows_of_one_that_was_not(data, ranks, tmp_path, pipeline):
    """Reading is ahead of training by four batches of `prefetch`, and by two of the pipeline."""
    config = arms.poso(growing())
    config = replace(config, data=replace(config.data, batch_size=16, prefetch=4))
    config = replace(config, train=replace(config.train, steps=9, pipeline=pipeline, checkpoint_every=2))
    whole = run(config, data, tmp_path / "whole", ranks)
    first = replace(config, train=replace(config.train, steps=3, keep_checkpoints=9))
    cut = run(first, data, tmp_path / "cut", ranks)
    assert 16 < cut[2]["growing_tables"]["user"]["ids"] < whole[2]["growing_tables"]["user"]["ids"] <= 40
    (tmp_path / "cut/checkpoints/step-3").rename(tmp_path / "gone")  # killed after the checkpoint of step 2
    shutil.copytree(tmp_path / "cut/checkpoints", tmp_path / "at 2")
    resumed = run(config, data, tmp_path / "cut", ranks)
    assert resumed[:2] == whole[:2] and resumed[2]["growing_tables"] == whole[2]["growing_tables"]
    run(replace(config, train=replace(config.train, steps=2)), data, tmp_path / "two", ranks)
    maps = [users_map(config, data, ranks, tmp_path / folder) for folder in ("at 2", "two/checkpoints")]
    assert torch.equal(*maps), "the map at step 2 is that of a run that ends there"


@pytest.mark.tried("configs and runs", "a checkpoint with id maps as long as their tables", "read as any other")
def test_a_checkpoint_whose_maps_are_padded_is_read(data, ranks, tmp_path, monkeypatch):
    """As they were written once: as long as the table, the largest id with row 0 behind the last."""
    config, state = growing(), DynamicIds.state
    config = replace(config, train=replace(config.train, steps=2))

    def padded(ids, *given):
        written = state(ids, *given)
        for name in [name for name in written if name.endswith(".known")]:
            rows = ids.maps[name.split(".")[1]].places + 1
            written[name] = torch.cat([written[name], written[name][:, -1:].expand(-1, rows)], 1)[:, :rows]
        return written

    with monkeypatch.context() as before:
        before.setattr(DynamicIds, "state", padded)
        run(config, data, tmp_path / "before", ranks)
    run(config, data, tmp_path / "now", ranks)
    maps = [users_map(config, data, ranks, tmp_path / folder / "checkpoints") for folder in ("before", "now")]
    assert torch.equal(*maps) and maps[0].shape[1] < 64


def users_map(config, data, ranks, checkpoints):
    made = build(config, data, ranks)
    made.load(checkpoints, {})
    return made.encoder.maps["user"].known


def test_a_full_table_says_so_once_and_counts_what_reads_row_0(data, ranks, tmp_path, capsys):
    config = growing(rows=33)
    *_, facts = run(replace(config, train=replace(config.train, epochs=2)), data, tmp_path / "r", ranks)
    told = capsys.readouterr().out
    assert told.count("table 'user' is full: all 32 rows for ids are taken; further ids read row 0") == 1
    assert "table 'tag'" not in told
    made = build(config, data, ranks)
    known: set[int] = set()
    missed = 0
    for raw in raws(config, data, made):
        new = sorted(ids_of(raw)["user"] - known)
        known |= set(new[: 32 - len(known)])
        missed += sum(x not in known for x in raw["user_id"].tolist())
    assert missed > 0
    assert facts["growing_tables"]["user"] == {"ids": 32, "rows": 33, "values_without_a_row": missed}
    assert facts["growing_tables"]["tag"]["values_without_a_row"] == 0


def test_a_stream_of_periods_that_was_cut_grows_as_one_that_was_not(ranks, tmp_path):
    days = ["2022-05-01", "2022-05-02", "2022-05-03"]
    folder = DataFolder.open(write_periods(tmp_path / "data", days, rows=60))
    config = growing()
    config = replace(config, data=replace(config.data, batch_size=16, prefetch=4))
    config = replace(config, train=replace(config.train, mode="periods", first_period=days[1]))
    ends = []
    for out, steps in ((tmp_path / "whole", (0,)), (tmp_path / "cut", (6, 0))):
        for limit in steps:
            part = replace(config, train=replace(config.train, steps=limit))
            train(part, folder, out, ranks, fresh=False, diff="")
        facts = json.loads((out / "run.json").read_text())
        ends.append((facts["growing_tables"], [(out / f"predictions-next/{d}.parquet").read_bytes() for d in days[1:]]))
    assert ends[0] == ends[1] and 30 < ends[0][0]["user"]["ids"] <= 40


def test_a_warm_start_brings_the_map_and_grows_on(data, ranks, tmp_path):
    config = growing()
    config = replace(config, data=replace(config.data, batch_size=16))
    short = replace(config, train=replace(config.train, steps=2))
    train(short, data, tmp_path / "donor", ranks, fresh=False, diff="")
    warm = replace(short, seed=2, train=replace(short.train, warm_start=str(tmp_path / "donor")))
    train(warm, data, tmp_path / "run", ranks, fresh=False, diff="")
    before, after = (
        users_map(c, data, ranks, tmp_path / f"{o}/checkpoints") for c, o in ((short, "donor"), (warm, "run"))
    )
    rows = [{int(x): int(row) for x, row in zip(*known, strict=True) if row} for known in (before, after)]
    assert rows[0].items() < rows[1].items()
