"""Outcomes that are known later, tables that are refreshed now and then, and histories of choice: every sample sees
what was known by then, and nothing else."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from event_logs import DAY_MS, GROUPS, SPEC, START, random_log
from naive_asof import naive_samples

from coldrank.cli.main import main
from coldrank.data.errors import UserError
from coldrank.data.feature_state import FeatureState
from coldrank.data.log import Group, History, LogSpec, check_spec
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, append, prepare
from coldrank.data.split import split_by_share
from coldrank.data.statistics import views_column

HOUR_S = 3600
SIGNALS = ["click", "like"]
HISTORIES = {
    "clicks": History(length=2, where="click", columns=("item_id", "hours", "like", "price")),
    "likes": History(length=3, where="like", columns=("author", "price", "item_id")),
    "long": History(length=9, columns=("click", "hours")),
}
BY_EVENT = {"click": 2 * HOUR_S, "like": pl.col("after_s")}
SPECS = {
    "none": SPEC,
    "an hour or a day": replace(SPEC, known_after={"click": 0, "like": 26 * HOUR_S}),
    "by event": replace(SPEC, known_after=BY_EVENT),
    "refreshed": replace(SPEC, refresh_h=24.0),
    "some refreshed": replace(
        SPEC, groups=tuple(replace(g, refresh_h=h) for g, h in zip(SPEC.groups, (6.0, 24.0, 0.0, None), strict=True))
    ),
    "histories": replace(SPEC, history_numbers={"price": pl.col("price") / 2}, histories=HISTORIES),
    "all": replace(
        SPEC,
        known_after=BY_EVENT,
        refresh_h=3.0,
        history_numbers={"price": pl.col("price") / 2},
        histories=HISTORIES,
        groups=(*SPEC.groups, Group(keys=("user",), refresh_h=24.0)),
    ),
}


def log_of(seed: int, rows: int = 160) -> pl.DataFrame:
    """Distinct events in order, each with the seconds until its like is known: for some longer than the log goes on."""
    rng = np.random.default_rng(seed)
    frame = random_log(seed, rows).with_columns(after_s=pl.Series(rng.integers(0, 60, rows) ** 2 * 100))
    price = [
        None if unknown else float(p) for p, unknown in zip(rng.normal(size=rows), rng.random(rows) < 0.2, strict=True)
    ]
    frame = frame.with_columns(price=pl.Series(price))
    return frame.unique(maintain_order=True).sort("time", "user", "item", maintain_order=True)


def write(frame: pl.DataFrame, folder: Path, name: str = "events") -> Path:
    (folder / "log").mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / "log" / f"{name}.parquet")
    return folder / "log"


def options(chunk_rows: int = 1 << 20) -> PrepareOptions:
    return PrepareOptions(history=4, item_history=3, arguments={"split": "time"}, chunk_rows=chunk_rows)


def prepared(frame: pl.DataFrame, folder: Path, spec: LogSpec, chunk_rows: int = 1 << 20) -> pl.DataFrame:
    log = open_log(write(frame, folder), spec)
    prepare(log, folder / "out", lambda known: split_by_share(known.times), options(chunk_rows))
    return samples_of(folder)


def samples_of(folder: Path) -> pl.DataFrame:
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    parts = [pl.read_parquet(folder / "out" / p["path"], hive_partitioning=False) for p in manifest["partitions"]]
    return pl.concat(parts).sort("time", "user_id", "item_id", maintain_order=True)


def expected(frame: pl.DataFrame, spec: LogSpec) -> list[dict[str, Any]]:
    after = {s: pl.lit(d) if isinstance(d, int) else d for s, d in spec.known_after.items()}
    events = frame.with_columns((1000 * a).alias(f"after:{s}") for s, a in after.items()).to_dicts()
    groups = list(spec.all_groups())
    return naive_samples(events, groups, SIGNALS, 4, refresh_h=spec.refresh_h, histories=spec.histories)


def shown(past: list[dict[str, Any]], column: str, now: int) -> list[Any]:
    if column == "hours":
        return [np.float32((now - p["time"]) / np.float32(3_600_000)) for p in past]
    if column == "price":
        return [None if p[column] is None else np.float32(p[column] / 2) for p in past]
    return [-1 if (v := p["item" if column == "item_id" else column]) is None else v for p in past]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("chunk_rows", [1, 1 << 20])
@pytest.mark.parametrize("case", SPECS)
def test_every_column_equals_the_double_loop(case: str, chunk_rows: int, seed: int, tmp_path: Path) -> None:
    spec, log = SPECS[case], log_of(seed)
    samples = prepared(log, tmp_path, spec, chunk_rows)
    assert samples["time"].equals(log["time"]) and samples["user_id"].to_list() == log["user"].to_list()
    for row, want in zip(samples.to_dicts(), expected(log, spec), strict=True):
        for group in GROUPS:
            assert row[views_column(group.name)] == want[f"views:{group.name}"]
            for signal in SIGNALS:
                assert np.float32(row[f"rate_{group.name}_{signal}"]) == want[f"rate:{group.name}:{signal}"]
        assert (row["user_gap_h"], row["item_age_h"]) == (want["gap_h"], want["age_h"])
        for column in ("item_id", "author", *spec.history_numbers, *SIGNALS):
            assert row[f"hist_{column}"] == shown(want["history"], column, row["time"])
        for name, history in spec.histories.items():
            for column in history.columns:
                assert row[f"hist_{name}_{column}"] == shown(want[f"history:{name}"], column, row["time"])


def test_delays_change_what_is_seen(tmp_path: Path) -> None:
    log = log_of(0)
    seen = {case: prepared(log, tmp_path / case, spec) for case, spec in SPECS.items()}
    none = seen["none"]
    assert not seen["an hour or a day"]["rate_user_like"].equals(none["rate_user_like"])
    assert seen["an hour or a day"]["rate_user_click"].equals(none["rate_user_click"])
    assert seen["an hour or a day"]["user_views"].equals(none["user_views"])
    assert (seen["refreshed"]["user_views"] <= none["user_views"]).all()
    assert (seen["refreshed"]["user_views"] < none["user_views"]).any()
    unknown = [(seen[c]["hist_like"].explode() == -1).sum() for c in ("none", "by event")]
    assert unknown[0] < unknown[1]


@pytest.mark.parametrize("case", ["none", "an hour or a day", "by event", "refreshed", "all"])
def test_what_is_not_known_yet_changes_no_sample(case: str, tmp_path: Path) -> None:
    """Outcomes are changed that are known after a moment, though their events are before it."""
    spec, log = SPECS[case], log_of(3)
    time = int(log["time"][len(log) // 2])
    after = {s: pl.lit(d) if isinstance(d, int) else d for s, d in spec.known_after.items()}
    # Who is asked at `time` sees what is known before it.
    late = {s: pl.col("time") + 1000 * after.get(s, pl.lit(0)) >= time for s in SIGNALS}
    changed = log.with_columns(
        pl.when(late[s]).then(1 - pl.col(s).fill_null(0)).otherwise(pl.col(s)).alias(s) for s in SIGNALS
    )
    first, second = (
        prepared(frame, tmp_path / name, spec).filter(pl.col("time") <= time).drop(pl.selectors.starts_with("label_"))
        for name, frame in (("log", log), ("changed", changed))
    )
    assert first.equals(second, null_equal=True)
    if spec.known_after:
        early = log.filter(pl.col("time") < time)
        assert any((early[s] != changed.filter(pl.col("time") < time)[s]).any() for s in SIGNALS)


@pytest.mark.parametrize("case", ["by event", "refreshed", "all", "anonymous"])
def test_a_day_at_a_time_equals_all_at_once(case: str, tmp_path: Path) -> None:
    spec, log = SPECS.get(case, replace(SPECS["all"], anonymous="own")), log_of(5)
    if case == "anonymous":
        log = log.with_columns(user=pl.when(pl.col("user") == 0).then(None).otherwise("user"))
    whole = prepared(log, tmp_path / "whole", spec)
    bounds = [0, *(START + k * DAY_MS for k in (2, 3, 4)), 2**62]
    parts = [log.filter(pl.col("time").is_between(a, b, closed="left")) for a, b in pairwise(bounds)]
    rule = lambda known: split_by_share(known.times)
    prepared(parts[0], tmp_path / "days", spec)
    for number, part in enumerate(parts[1:]):
        append(open_log(write(part, tmp_path / "days", f"day-{number}"), spec), tmp_path / "days/out", rule, options())
    assert samples_of(tmp_path / "days").equals(whole, null_equal=True)
    manifests = [json.loads((tmp_path / n / "out" / "manifest.json").read_text()) for n in ("whole", "days")]
    counts = [{n: v for n, v in m["counts"].items() if n != "files_read"} for m in manifests]
    assert counts[0] == counts[1]


def past(row: dict[str, Any], spec: LogSpec) -> dict[str, Any]:
    """What histories show of an event, as its caller gives it."""
    price = {"price": None if row["price"] is None else row["price"] / 2} if spec.history_numbers else {}
    return {"author": row["author"]} | price


@pytest.mark.parametrize("case", ["by event", "all"])
def test_a_log_that_is_replayed_gives_the_samples(case: str, tmp_path: Path) -> None:
    spec, log = SPECS[case], log_of(6, rows=80)
    cut = START + 3 * DAY_MS
    whole = prepared(log, tmp_path / "whole", spec)
    prepared(log.filter(pl.col("time") < cut), tmp_path / "early", spec)
    state, late, got = FeatureState.open(tmp_path / "early" / "out"), log.filter(pl.col("time") >= cut), []
    for row in late.to_dicts():
        keys = {"author": row["author"], "tag": row["tag"]}
        candidate = {"item_id": row["item"], "keys": keys, "birth": row["birth"]}
        got.append(pl.DataFrame(pl.from_arrow(state.features(row["user"], [candidate], row["time"]))))
        state.observe(
            candidate
            | {"user_id": row["user"], "time": row["time"], "history": past(row, spec)}
            | {"signals": {s: row[s] for s in SIGNALS}, "known_after": {"like": row["after_s"]}}
        )
    features = pl.concat(got)
    wanted = whole.filter(pl.col("time") >= cut).select(features.columns)
    assert len(features) > 10 and features.equals(wanted, null_equal=True)


@pytest.mark.tried("logs", "an event for FeatureState without the delay that its signal has by event", "refused")
def test_an_event_says_when_its_outcome_is_known(tmp_path: Path) -> None:
    prepared(log_of(0), tmp_path, SPECS["by event"])
    state = FeatureState.open(tmp_path / "out")
    event = {"user_id": 1, "item_id": 1, "time": state.time + 1, "signals": {"like": 1}}
    with pytest.raises(UserError, match="known_after: like is None; should be seconds"):
        state.observe(event)
    with pytest.raises(UserError, match="known_after: 'click' is unknown; the state has like"):
        state.observe(event | {"known_after": {"click": 1}})


def tried(given: str) -> pytest.MarkDecorator:
    return pytest.mark.tried("logs", given, "refused, with the field and the value")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param(
            {"known_after": {"buy": 1}},
            "known_after: 'buy' is no signal",
            marks=tried("a spec with a delay of no signal"),
        ),
        pytest.param(
            {"known_after": {"like": -1}}, "known_after: like=-1; should be", marks=tried("a spec with a delay below 0")
        ),
        pytest.param(
            {"refresh_h": -1.0}, "refresh_h=-1.0; should be hours", marks=tried("a spec with a refresh below 0")
        ),
        pytest.param(
            {"groups": (Group(keys=("user",), refresh_h=1e9),)},
            "group 'user': refresh_h=1000000000.0",
            marks=tried("a spec with a refresh longer than a year"),
        ),
        pytest.param(
            {"histories": {"x": History(length=0)}},
            "'x': length=0; should be above 0",
            marks=tried("a spec with a history of 0"),
        ),
        pytest.param(
            {"histories": {"x": History(length=1, where="buy")}},
            "'x': where='buy' is no signal",
            marks=tried("a spec with a history of what is no signal"),
        ),
        pytest.param(
            {"histories": {"x": History(length=1, columns=("tag",))}},
            "'x': column 'tag' is unknown; these are item_id, author, click, like, hours",
            marks=tried("a spec with a history of a column that is none"),
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"spec: .*{said}"):
        check_spec(replace(SPEC, **changes))


@pytest.mark.tried("logs", "a delay that is empty or below 0 in a row", "refused, with file, column and row")
@pytest.mark.parametrize("value", [None, -1, 1e12])
def test_a_row_without_a_delay_is_named(value: float | None, tmp_path: Path) -> None:
    log = log_of(0).with_columns(after_s=pl.when(pl.int_range(pl.len()) == 7).then(value).otherwise("after_s"))
    with pytest.raises(UserError, match=r"events\.parquet: column after_s \(delay like\), row 8: .*10 years"):
        prepared(log, tmp_path, SPECS["by event"])


def test_options_of_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(log_of(0), tmp_path)
    (tmp_path / "spec.py").write_text(
        "from coldrank.data.log import LogSpec\n"
        "spec = LogSpec(user='user', item='item', time='time', tasks={'click': 'click', 'like': 'like'})\n"
    )
    command = ["prepare", "log", "--spec", str(tmp_path / "spec.py"), "--data", str(tmp_path / "log")]
    command += ["--out", str(tmp_path / "out"), "--test-from", "2022-04-18", "--valid-days", "1"]
    command += ["--history", "4"]
    delays = ["--known-after", "like=90000", "--refresh-hours", "24"]
    assert main([*command, *delays]) == 0
    made = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert made["known_after"] == {"click": 0, "like": 90000} and made["refresh_h"] == 24
    assert made["arguments"]["known_after"] == {"like": 90000} and made["groups"][0]["refresh_h"] == 24
    spec = LogSpec(user="user", item="item", time="time", tasks={s: s for s in SIGNALS})
    spec = replace(spec, known_after={"like": 90_000}, refresh_h=24)
    assert samples_of(tmp_path).equals(prepared(log_of(0), tmp_path / "by", spec).select(samples_of(tmp_path).columns))
    assert main([*command, *delays, "--append"]) == 0  # nothing is new
    more = log_of(1).with_columns(time=pl.col("time") + 9 * DAY_MS)
    write(more, tmp_path, "more")
    assert main([*command, "--append"]) == 2
    assert "--known-after: {}, but" in capfd.readouterr().err
    assert main([*command, "--known-after", "buy=1"]) == 2
    assert "known_after: 'buy' is no signal" in capfd.readouterr().err


@pytest.mark.parametrize("value", ["dear", float("nan"), 1e300, True])
@pytest.mark.tried("logs", "an event for FeatureState with a number of its history that is none", "refused")
def test_a_number_of_an_event_that_is_none_is_refused(value: Any, tmp_path: Path) -> None:
    prepared(log_of(0), tmp_path, SPECS["histories"])
    state = FeatureState.open(tmp_path / "out")
    event = {"user_id": 1, "item_id": 2, "time": 2**41, "history": {"price": value}}
    with pytest.raises(UserError, match="history: price is .*; should be a number that 32 bits hold, or None"):
        state.observe(event)
    state.observe(event | {"history": {"price": None}})


def test_a_name_of_a_past_number_is_its_own() -> None:
    for name in ("author", "click", "hours", "item_id"):
        with pytest.raises(UserError, match=f"spec: history_numbers: '{name}' is taken; choose another name"):
            check_spec(replace(SPEC, history_numbers={name: "price"}))
