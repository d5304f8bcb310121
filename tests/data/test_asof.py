"""Samples hold what was known strictly before their time, and nothing else."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from event_logs import GROUPS, START, prepare_frame, random_log, read_samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive_asof import naive_samples
from polars.testing import assert_frame_equal

from coldrank.data.asof import Grouping, combine, stable_order
from coldrank.data.ids import string_id
from coldrank.data.statistics import views_column

SIGNALS = ["click", "like"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("history", [0, 1, 4])
def test_every_column_equals_the_double_loop(seed: int, history: int, tmp_path: Path) -> None:
    log = random_log(seed).sort("time", "user", "item", maintain_order=True).unique(maintain_order=True)
    prepare_frame(log, tmp_path, history=history)
    samples = read_samples(tmp_path).sort("time", "user_id", "item_id", maintain_order=True)
    assert_frame_equal(samples.select("time", "user_id", "item_id"), log.select("time", user_id="user", item_id="item"))
    for row, want in zip(samples.to_dicts(), naive_samples(log.to_dicts(), GROUPS, SIGNALS, history), strict=True):
        for group in GROUPS:
            assert row[views_column(group.name)] == want[f"views:{group.name}"]
            for signal in SIGNALS:
                assert np.float32(row[f"rate_{group.name}_{signal}"]) == want[f"rate:{group.name}:{signal}"]
        assert (row["user_gap_h"], row["item_age_h"]) == (want["gap_h"], want["age_h"])
        past = want["history"]
        assert row["hist_item_id"] == [p["item"] for p in past]
        assert row["hist_author"] == [-1 if p["author"] is None else p["author"] for p in past]
        for signal in SIGNALS:
            assert row[f"hist_{signal}"] == [-1 if p[signal] is None else p[signal] for p in past]


def changed_after(log: pl.DataFrame, time: int, seed: int) -> pl.DataFrame:
    """The log with its rows after a time deleted in part, changed in value, joined by new ones, and all shuffled."""
    rng = np.random.default_rng(seed)
    past, future = log.filter(pl.col("time") <= time), log.filter(pl.col("time") > time)
    last = START + 5 * 86_400_000
    future = future.filter(pl.Series(rng.random(len(future)) < 0.6, dtype=pl.Boolean))
    future = future.with_columns(
        click=pl.Series(rng.integers(0, 2, len(future))),
        author=pl.Series(rng.integers(0, 5, len(future))),
        time=pl.Series(rng.integers(time + 1, last, len(future))),
    )
    new = random_log(seed + 1, rows=20).with_columns(
        time=pl.Series(rng.integers(time + 1, last, 20)), user=pl.Series(rng.integers(-3, 3, 20) * 1000)
    )
    future = pl.concat([future, new])
    mixed = pl.concat([past.with_columns(order=pl.int_range(len(past))), future.with_columns(order=pl.lit(None))])
    mixed = mixed[rng.permutation(len(mixed))]
    # Rows of the past keep their own order: the order of rows decides between events of equal time, user and item.
    places = np.flatnonzero(mixed["order"].is_not_null().to_numpy())
    index = np.arange(len(mixed))
    index[places] = places[np.argsort(mixed["order"].drop_nulls().to_numpy())]
    return mixed[index].drop("order")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), share=st.floats(0.1, 0.9))
def test_the_future_changes_no_sample(seed: int, share: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("future")
    log = random_log(seed).sort("time", maintain_order=True)
    time = int(log["time"][int(share * (len(log) - 1))])
    seen = []
    for name, frame in (("log", log), ("changed", changed_after(log, time, seed))):
        prepare_frame(frame, folder / name)
        samples = read_samples(folder / name).drop("path").filter(pl.col("time") <= time)
        seen.append(samples.sort("time", "user_id", "item_id", maintain_order=True))
    assert len(seen[0]) > 0
    assert_frame_equal(seen[0], seen[1], check_exact=True)


def test_the_event_itself_and_its_ties_are_not_seen(tmp_path: Path) -> None:
    log = random_log(1)
    tied = log.with_columns(time=START + pl.int_range(len(log)) // 40 * 86_400_000)
    prepare_frame(tied, tmp_path)
    first = read_samples(tmp_path).filter(pl.col("time") == START)
    assert first["user_views"].to_list() == [0] * len(first)
    assert first["rate_user_click"].to_list() == [0.5] * len(first)
    assert first["hist_item_id"].list.len().sum() == 0


@given(st.lists(st.integers(0, 2**40), max_size=50))
def test_stable_order(codes: list[int]) -> None:
    array = np.array(codes, np.int64)
    np.testing.assert_array_equal(stable_order(array), np.argsort(array, kind="stable"))


def test_combine_keeps_groups_apart_also_where_codes_are_huge() -> None:
    huge = np.array([2**40, 0, 2**40, -1, 5], np.int64)
    other = np.array([2**30, 2**30, 1, 3, -1], np.int64)
    codes = combine([huge, other, other])
    assert codes[3] == codes[4] == -1
    assert len(set(codes[:3].tolist())) == 3 and (codes[:3] >= 0).all()


def test_timeline_of_no_events_of_a_known_group() -> None:
    line = Grouping.from_codes(np.array([-1, -1]), np.array([1, 2]))
    none = np.empty(0, np.int64)
    assert line.views(none).tolist() == [0, 0]
    assert line.rate(np.array([1, 1], np.int8), 0.25, 10.0, (none, none)).tolist() == [0.25, 0.25]
    assert np.isnan(line.hours_since_last(np.array([1, 2]), none)).all()


def test_strings_become_their_documented_ids(tmp_path: Path) -> None:
    prepare_frame(random_log(2), tmp_path)
    places = set(read_samples(tmp_path)["place"].unique().to_list())
    assert places == {None, string_id("news"), string_id("café")}
    # First 8 bytes of BLAKE2b("news"), little-endian, signed: fixed for ever, as serving hashes by itself.
    assert string_id("news") == NEWS_ID


NEWS_ID = 3888708816853527320
