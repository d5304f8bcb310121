"""Dynamic ids that get a row at their n-th event: at that step, never late, and whatever is stopped."""

import itertools
import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
from tiny import growing

from coldrank.configs import base as arms
from coldrank.data.errors import UserError
from coldrank.data.read import SampleReader
from coldrank.train.checks import validate
from coldrank.train.run import build
from coldrank.train.trainer import train


def waiting(n: int, rows: int = 64, mapping: str = "growing", **fields: object):
    """Tables of users, items and tags whose ids get a row at their n-th event."""
    config = growing(rows, mapping)
    tables = tuple(replace(t, min_count=n, **fields) for t in config.tables)
    return replace(config, tables=tables, data=replace(config.data, batch_size=16))


def raws(config, data, run):
    reader = SampleReader(data.files(config.data.fit), run.make.columns(), config.data.batch_size)
    return list(reader.epoch(0))


def events_of(raw) -> dict[str, Counter]:
    """Candidates, not what histories hold."""
    return {
        "user": Counter(raw["user_id"].tolist()),
        "item": Counter(raw["item_id"].tolist()),
        "tag": Counter(raw["item_tags"][0].tolist()),
    }


@pytest.mark.parametrize("mapping", ["growing", "managed"])
@pytest.mark.parametrize("n", [2, 5])
def test_an_id_gets_its_row_in_the_batch_of_its_nth_event(data, ranks, n, mapping):
    config = waiting(n, mapping=mapping)
    run = build(config, data, ranks)
    read = raws(config, data, run)
    batches = [run.make(raw) for raw in read]  # all of them read ahead
    seen = {name: Counter() for name in ("user", "item", "tag")}
    waited = 0
    for raw, batch in zip(read, batches, strict=True):
        before = {name: {x for x, count in counts.items() if count >= n} for name, counts in seen.items()}
        given = run.dynamic_ids(batch)
        for name, events in events_of(raw).items():
            seen[name] += events
            ripe = {x for x, count in seen[name].items() if count >= n}
            assert given[name].size == len(ripe) and len(given[name].rows) == len(ripe - before[name])
            assert given[name].missed == 0, "who waits has not found the table full"
        values = batch.sparse.to_dict()
        for feature, column in (("user_id", "user"), ("item_id", "item")):
            rows = values[feature].values().tolist()
            assert [row > 0 for row in rows] == [seen[column][x] >= n for x in raw[feature].tolist()]
            waited += rows.count(0)
        items, ends = raw["hist_item_id"]
        third = [items[low + 2] for low, high in itertools.pairwise(ends) if high - low > 2]
        assert [row > 0 for row in values["hist_item_id.2"].values().tolist()] == [seen["item"][x] >= n for x in third]
    assert waited > 0 and len(given) == 3 and given["user"].size > 20


def test_a_column_that_two_features_read_counts_once(data, ranks):
    config = waiting(2)
    user = next(f for f in config.features if f.name == "user_id")
    twice = replace(user, name="again", column="user_id", role="context")
    config = replace(config, features=(*config.features, twice))
    run = build(config, data, ranks)
    raw = raws(config, data, run)[0]
    given = run.dynamic_ids(run.make(raw))
    assert given["user"].size == sum(count > 1 for count in Counter(raw["user_id"].tolist()).values()) < 16


def test_a_sketch_with_room_does_as_exact_counts_and_a_full_table_lets_go_of_them(data, ranks):
    exact, sketch = waiting(3, rows=25), waiting(3, rows=25, admission="sketch")
    runs = [build(config, data, ranks) for config in (exact, sketch)]
    for raw in raws(exact, data, runs[0]):
        batches = [run.make(raw) for run in runs]
        given = [run.dynamic_ids(batch) for run, batch in zip(runs, batches, strict=True)]
        assert [r.rows.tolist() for r in given[0].values()] == [r.rows.tolist() for r in given[1].values()]
        assert batches[0].sparse.values().equal(batches[1].sparse.values())
        user = runs[0].dynamic_ids.maps["user"]
        assert not (user.is_full() and (user.waiting.known[1].any() or user.waiting.tail.numel()))
    assert user.is_full() and given[0]["user"].missed > 0
    assert runs[1].dynamic_ids.maps["tag"].waiting.counters.any()


@pytest.mark.parametrize("fields", [{}, {"admission": "sketch", "counters": 8192}, {"mapping": "managed", "rows": 25}])
def test_a_run_that_was_stopped_counts_on(data, ranks, tmp_path, fields):
    config = arms.poso(waiting(3, **fields))
    config = replace(config, data=replace(config.data, prefetch=4))

    def ended(out, steps):
        part = replace(config, train=replace(config.train, steps=steps, checkpoint_every=3, keep_checkpoints=9))
        train(part, data, out, ranks, fresh=False, diff="")
        files = {p.name: p.read_bytes() for p in (out / f"checkpoints/step-{steps}").glob("*.distcp")}
        return files, json.loads((out / "run.json").read_text())["growing_tables"]

    whole = ended(tmp_path / "whole", 9)
    ended(tmp_path / "cut", 5)
    shutil.rmtree(tmp_path / "cut/checkpoints/step-5")  # killed after the checkpoint of step 3
    assert ended(tmp_path / "cut", 9) == whole and whole[1]["user"]["ids"] > 10


@pytest.mark.tried("configs and runs", "min_count of a growing table with train.pipeline=on", "refused: it reads ahead")
def test_what_waiting_ids_leave_no_room_for_is_refused():
    config = waiting(2)
    with pytest.raises(UserError, match=r"pipeline='on': ids of user, item, tag that wait for a row .*pipeline=auto"):
        validate(replace(config, train=replace(config.train, pipeline="on")))
