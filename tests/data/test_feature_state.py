"""A log, replayed event by event through the state of its first days, gives the prepared samples to the bit."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from event_logs import DAY_MS, SPEC, START, random_log

from coldrank.data import feature_state
from coldrank.data.errors import UserError
from coldrank.data.feature_state import FeatureState
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, prepare
from coldrank.data.split import split_by_share


def prepared(folder: Path, log: pl.DataFrame) -> pl.DataFrame:
    """The samples of a log, in order, prepared into folder/out."""
    (folder / "log").mkdir(parents=True)
    log.write_parquet(folder / "log" / "events.parquet")
    options = PrepareOptions(history=4, item_history=3, arguments={})
    made = prepare(open_log(folder / "log", SPEC), folder / "out", lambda known: split_by_share(known.times), options)
    parts = [pl.read_parquet(folder / "out" / p["path"], hive_partitioning=False) for p in made["partitions"]]
    return pl.concat(parts).sort("time", "user_id", "item_id", maintain_order=True)


def event(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "user_id": row["user"],
        "item_id": row["item"],
        "time": row["time"],
        "keys": {"author": row["author"], "tag": row["tag"]},
        "history": {"author": row["author"]},
        "signals": {"click": row["click"], "like": row["like"]},
        "birth": row["birth"],
    }


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("seed", range(2))
def test_a_log_that_is_replayed_gives_the_samples(
    seed: int, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """every: features are asked for before every n-th event; meanwhile events of several times wait."""
    monkeypatch.setattr(feature_state, "_PENDING", 3)
    log = random_log(seed, rows=80).unique(maintain_order=True).sort("time", "user", "item", maintain_order=True)
    cut = START + 3 * DAY_MS
    whole = prepared(tmp_path / "whole", log)
    prepared(tmp_path / "early", log.filter(pl.col("time") < cut))
    state = FeatureState.open(tmp_path / "early" / "out")
    late = log.filter(pl.col("time") >= cut)
    got = []
    for number, row in enumerate(late.to_dicts()):
        candidate = {n: v for n, v in event(row).items() if n in ("item_id", "keys", "birth")}
        if number % every == 0:
            got.append(pl.DataFrame(pl.from_arrow(state.features(row["user"], [candidate], row["time"]))))
        state.observe(event(row))
    features = pl.concat(got)
    wanted = whole.filter(pl.col("time") >= cut).select(features.columns).gather_every(every)
    assert len(features) > 5 and features.equals(wanted, null_equal=True)
    assert features.schema == wanted.schema


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    prepared(tmp_path, random_log(0))
    state = FeatureState.open(tmp_path / "out")
    now = state.time
    with pytest.raises(UserError, match="the state has seen an event of"):
        state.features(1, [{"item_id": 1}], now)
    with pytest.raises(UserError, match="events come in order"):
        state.observe({"user_id": 1, "item_id": 1, "time": now})
    with pytest.raises(UserError, match="signals: 'buy' is unknown; the state has click, like"):
        state.observe({"user_id": 1, "item_id": 1, "time": now + 1, "signals": {"buy": 1}})
    with pytest.raises(UserError, match="signals: click is 2; should be 0, 1 or None"):
        state.observe({"user_id": 1, "item_id": 1, "time": now + 1, "signals": {"click": 2}})
    with pytest.raises(UserError, match="users: is no field of an event"):
        state.observe({"users": 1})
    good = {"user_id": 1, "item_id": 1, "time": now + 1}
    for name, value in (("user_id", 1.5), ("item_id", None), ("item_id", 2**63), ("time", "2022"), ("birth", 0.5)):
        with pytest.raises(UserError, match=f"{name}: .*; should be an integer of 64 bits"):
            state.observe(good | {name: value})
    with pytest.raises(UserError, match="author: 0.5; should be an integer of 64 bits or a string"):
        state.observe(good | {"keys": {"author": 0.5}})
    first = state.features(1, [{"item_id": 1}, {"item_id": 2}], now + 1)
    state.observe({"user_id": 1, "item_id": 1, "time": now + 1})
    # Of the same time: not seen yet.
    assert state.features(1, [{"item_id": 1}, {"item_id": 2}], now + 1).equals(first)
    seen = state.features(1, [{"item_id": 1}], now + 2)["user_views"][0].as_py()
    assert seen == first["user_views"][0].as_py() + 1
