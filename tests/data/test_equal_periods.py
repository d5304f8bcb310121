"""Periods of equally many events, and the users of an item's last events."""

from pathlib import Path

import numpy as np
import polars as pl
from event_logs import SPEC, random_log, read_samples

from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, prepare
from coldrank.data.split import split_by_time


def prepared(folder: Path, frame: pl.DataFrame) -> dict:
    (folder / "log").mkdir(parents=True)
    frame.write_parquet(folder / "log" / "events.parquet")
    options = PrepareOptions(history=4, item_history=3, periods=12, arguments={})
    log = open_log(folder / "log", SPEC)
    return prepare(log, folder / "out", lambda known: split_by_time(known.days, None, 1), options)


def test_periods_of_equally_many_events_follow_each_other(tmp_path):
    manifest = prepared(tmp_path, random_log(0))
    rows: dict[str, int] = {}
    last = 0
    for part in sorted(manifest["partitions"], key=lambda p: (p["period"], p["time_min"])):
        rows[part["period"]] = rows.get(part["period"], 0) + part["rows"]
        assert part["time_min"] >= last
        last = part["time_max"]
    assert list(rows) == [f"p{n:02d}" for n in range(1, 13)]
    assert max(rows.values()) - min(rows.values()) <= 1


def test_an_item_shows_the_users_of_its_last_events_before(tmp_path):
    prepared(tmp_path, random_log(1))
    samples = read_samples(tmp_path).sort("time", "user_id", "item_id")
    item, time, user = (samples[n].to_numpy() for n in ("item_id", "time", "user_id"))
    shown = samples["item_hist_user_id"].to_list()
    assert max(map(len, shown)) == 3
    for row, users in enumerate(shown):
        before = np.flatnonzero((item == item[row]) & (time < time[row]))
        assert len(users) == min(3, len(before)) == min(3, samples["item_views"][row])
        times = sorted(time[before])[::-1][: len(users)]
        for moment, shown_user in zip(times, users, strict=True):  # of equal times the order is open
            assert shown_user in user[before[time[before] == moment]]


def test_what_comes_later_changes_no_history(tmp_path):
    frame = random_log(2).sort("time")
    early = frame.filter(pl.col("time") < frame["time"][100])
    shown = {}
    for name, log in (("whole", frame), ("early", early)):
        prepared(tmp_path / name, log)
        shown[name] = read_samples(tmp_path / name).sort("time", "user_id", "item_id")["item_hist_user_id"].to_list()
    assert shown["whole"][: len(shown["early"])] == shown["early"]
