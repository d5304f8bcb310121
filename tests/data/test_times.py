"""Times that cannot be what they are taken for: units, days that lie apart, zones; what is printed of them."""

import dataclasses
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from event_logs import DAY_MS, SPEC, START, prepare_frame, random_log, read_samples

from coldrank.cli.main import main
from coldrank.data.audit.report import audit
from coldrank.data.errors import UserError
from coldrank.data.times import DayTimes, Span, as_date, time_doubts

TODAY = date(2026, 11, 1)
# 2002-11-09 to 2022-11-09, in seconds.
TWENTY_YEARS = np.linspace(1_036_800_000, 1_667_952_000, 5000).astype(np.int64)


@pytest.mark.parametrize(
    ("factor", "unit", "remedy"),
    [
        pytest.param(
            1,
            "ms",
            "1970-01-13 to 1970-01-20, long before there were such logs; with time_unit='s' in the place of 'ms'",
            marks=pytest.mark.tried(
                "logs", "20 years in seconds, read as ms", "warned, with the unit that makes sense"
            ),
        ),
        pytest.param(
            1,
            "us",
            "1970-01-13 to 1970-01-20, long before there were such logs; with time_unit='ms' in the place of 'us'",
            marks=pytest.mark.tried("logs", "milliseconds read as us", "warned, with the unit that makes sense"),
        ),
        (1, "ns", "with time_unit='us' in the place of 'ns'"),
        (1, None, "multiplied by 1,000 (were seconds taken for milliseconds?)"),
        pytest.param(
            1e-3,
            "ns",
            "1970-01-01 to 1970-01-01, long before there were such logs; with time_unit='ms' in the place of 'ns'",
            marks=pytest.mark.tried("logs", "milliseconds read as ns", "warned, with the unit that makes sense"),
        ),
        (1e-3, "us", "with time_unit='s' in the place of 'us'"),
    ],
)
def test_a_unit_that_is_too_fine_is_named(factor: float, unit: str | None, remedy: str) -> None:
    (doubt,) = time_doubts(DayTimes.of_times((TWENTY_YEARS * factor).astype(np.int64)), unit, TODAY)
    assert doubt.startswith("5,000 of 5,000 events are of ") and remedy in doubt
    # The floor of a thousandth loses up to a thousand milliseconds.
    assert doubt.endswith("they would be of 2002-11-09 to 2022-11-09")


@pytest.mark.tried("logs", "counts of 100 ns since 1601, read as ns", "warned: no unit makes sense")
def test_times_of_no_unit_are_told() -> None:
    time = (TWENTY_YEARS + 11_644_473_600) * 10_000_000 // 1_000_000
    (doubt,) = time_doubts(DayTimes.of_times(time), "ns", TODAY)
    assert "of 1974-01-07 to 1974-03-21" in doubt and doubt.endswith("no other unit makes sense of them")


@pytest.mark.tried("logs", "half of the rows in seconds, half in ms", "those of 1970 are counted and warned of")
def test_two_units_in_one_column_are_told() -> None:
    time = np.sort(np.concatenate([TWENTY_YEARS, TWENTY_YEARS[:2500] * 1000]))
    (doubt,) = time_doubts(DayTimes.of_times(time), "ms", TODAY)
    assert doubt.startswith("5,000 of 7,500 events are of 1970-01-13 to 1970-01-20")


@pytest.mark.tried("logs", "times of the year after next", "warned: of the future")
def test_the_future_is_told() -> None:
    time = START + np.arange(100) * DAY_MS
    assert time_doubts(DayTimes.of_times(time), "ms", TODAY) == []
    assert time_doubts(DayTimes.of_times(time), "ms", as_date(START // DAY_MS) + timedelta(98)) == []
    (doubt,) = time_doubts(DayTimes.of_times(time), "ms", as_date(START // DAY_MS))
    assert doubt == "98 of 100 events are of the future: 2022-04-17 to 2022-07-23"


@pytest.mark.parametrize(
    ("days", "apart"),
    [
        ([0] + [100] * 300 + [101] * 300 + [40_000], [0, 40_000]),
        ([0, 20_000] + [30_000] * 300 + [30_001] * 300, [0, 20_000]),
        # A year ahead, of a month of days.
        ([*range(100, 130), 495], [495]),
        # Not one event but a quarter of them.
        ([0, 0, 0] + [100] * 4 + [101] * 5, []),
        # Seldom events, as far from each other as usual.
        (list(range(0, 4000, 40)), []),
        ([0, 1, 2, 3, 4, 5, 20], []),
        ([7], []),
    ],
)
def test_days_lie_apart_far_from_the_others_with_next_to_nothing(days: list[int], apart: list[int]) -> None:
    span = Span.from_days(np.array(days, np.int32))
    assert span.days[span.apart].tolist() == apart and span.rows.sum() == len(days)


def long_log(rows: int = 400) -> pl.DataFrame:
    """Ten days."""
    log = random_log(0, rows)
    return log.with_columns(time=START + pl.int_range(rows) * (10 * DAY_MS // rows))


def with_outliers(log: pl.DataFrame) -> pl.DataFrame:
    """The first row is of 1970, the last of 2099."""
    time = pl.Series([86_400_000, *log["time"][1:-1], 4_070_908_800_000])
    return log.with_columns(time=time)


@pytest.mark.tried("logs", "one row of 1970 and one of 2099", "named; the test split is as without them")
def test_outliers_are_named_and_do_not_move_the_test(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain, odd = (
        prepare_frame(long_log(), tmp_path / "plain"),
        prepare_frame(with_outliers(long_log()), tmp_path / "odd"),
    )
    printed = capfd.readouterr().err
    assert (
        "warning: column time: 2 of 400 events are far from all others, which are of 2022-04-15 to 2022-04-24:"
        " 1970-01-02 (1), 2099-01-01 (1)" in printed
    )
    assert plain["splits"]["test"]["rows"] == odd["splits"]["test"]["rows"] == 80
    assert odd["splits"]["test"]["time_min"] == plain["splits"]["test"]["time_min"] == START + 8 * DAY_MS
    days = {"1970-01-02": 1, "2099-01-01": 1}
    assert odd["span"] == {"first_day": "2022-04-15", "last_day": "2022-04-24", "days_apart": days}
    assert plain["span"]["days_apart"] == {}
    doubts = [f.what for f in audit(tmp_path / "odd" / "out").findings if f.check == "times"]
    assert len(doubts) == 1 and doubts[0].startswith("2 of 400 events are far from all others")
    assert not [f for f in audit(tmp_path / "plain" / "out").findings if f.check == "times"]


@pytest.mark.tried("data folders", "check of samples of January 1970", "warned, with what would make sense")
def test_check_finds_a_wrong_unit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    time = pl.Series("time", np.linspace(1_036_800_000, 1_667_952_000, 400), pl.Int64)
    prepare_frame(long_log().with_columns(time), tmp_path)
    assert "warning: column time: 400 of 400 events are of 1970-01-13 to 1970-01-20" in capfd.readouterr().err
    (finding,) = (f for f in audit(tmp_path / "out").findings if f.check == "times")
    assert finding.severity == "warning" and "multiplied by 1,000" in finding.what
    assert finding.what.endswith("they would be of 2002-11-09 to 2022-11-09")


@pytest.mark.tried("logs", "datetimes of January 1970", "warned, without a unit to choose")
def test_datetimes_have_no_unit_to_choose(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    time = pl.Series("time", np.linspace(1_036_800_000, 1_667_952_000, 400), pl.Int64).cast(pl.Datetime("ms"))
    prepare_frame(long_log().with_columns(time), tmp_path)
    assert "multiplied by 1,000 (were seconds taken for milliseconds?)" in capfd.readouterr().err


@pytest.mark.tried("logs", "a negative time", "refused, with its row")
def test_negative_times_are_refused(tmp_path: Path) -> None:
    log = long_log().with_columns(time=pl.Series([*long_log()["time"][:-1], -5]))
    with pytest.raises(UserError, match=r"column time \(time\), row 400: -5 is outside 1970..2100"):
        prepare_frame(log, tmp_path)


@pytest.mark.parametrize(
    "zone",
    [
        pytest.param(z, marks=pytest.mark.tried("logs", f"datetimes of zone {z or 'none'}", "the same moment in UTC"))
        for z in ("Asia/Kathmandu", "America/St_Johns", None)
    ],
)
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_datetimes_of_a_zone_are_the_same_moments(zone: str | None, unit: str, tmp_path: Path) -> None:
    moment = pl.col("time").cast(pl.Datetime("ms")).cast(pl.Datetime(unit))
    if zone is not None:
        moment = moment.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    prepare_frame(long_log(40).with_columns(moment), tmp_path)
    assert read_samples(tmp_path)["time"].sort().to_list() == long_log(40)["time"].to_list()


@pytest.mark.parametrize(
    ("offset", "moment", "day"),
    [
        pytest.param(
            5.75, datetime(2022, 4, 17, 18, 15), 18, marks=pytest.mark.tried("logs", "utc_offset_h=5.75", "local days")
        ),
        (5.75, datetime(2022, 4, 17, 18, 14, 59), 17),
        pytest.param(
            -3.5,
            datetime(2022, 4, 17, 3, 29, 59),
            16,
            marks=pytest.mark.tried("logs", "utc_offset_h=-3.5", "local days"),
        ),
        (-3.5, datetime(2022, 4, 17, 3, 30), 17),
    ],
)
def test_days_begin_by_the_offset(offset: float, moment: datetime, day: int, tmp_path: Path) -> None:
    stamp = int((moment - datetime(1970, 1, 1)).total_seconds() * 1000)
    log = random_log(0, 4).with_columns(time=pl.Series([START, stamp, START + DAY_MS * 9, START + DAY_MS * 10]))
    content = prepare_frame(log, tmp_path, dataclasses.replace(SPEC, utc_offset_h=offset))
    period = next(p["period"] for p in content["partitions"] if p["time_min"] <= stamp <= p["time_max"])
    assert period == f"2022-04-{day}"


@pytest.mark.parametrize(
    "offset",
    [
        pytest.param(o, marks=pytest.mark.tried("logs", f"utc_offset_h={o:g}", "refused: hours, -12 to 14"))
        for o in (480.0, 28_800.0, float("nan"))
    ],
)
def test_an_offset_is_in_hours(offset: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"spec: utc_offset_h={offset}; should be hours, -12 to 14"):
        prepare_frame(long_log(), tmp_path, dataclasses.replace(SPEC, utc_offset_h=offset))


@pytest.mark.tried("logs", "a day column that is not of the events' time", "warned, with the share of events")
def test_a_day_of_another_clock_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    day = pl.col("time").cast(pl.Datetime("ms")).dt.date()
    log = long_log().with_columns(day=pl.when(pl.int_range(400) < 100).then(day + pl.duration(days=-5)).otherwise(day))
    prepare_frame(log, tmp_path, dataclasses.replace(SPEC, day="day"))
    assert "warning: day: 25.0% of the events (100) are dated more than a day from their time" in capfd.readouterr().err


def test_the_span_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = str(tmp_path / "log")
    assert main(["simulate", "--events", "3000", "--days", "6", "--out", log]) == 0
    assert (
        main(["prepare", "kuairand", "--data", log, "--out", str(tmp_path / "out"), "--test-from", "2022-05-04"]) == 0
    )
    assert "\n2022-04-30 to 2022-05-05; days from 2022-05-04 on are test, 2 before valid\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("unit", "factor", "hint"),
    [
        pytest.param(
            "s", 1, r"really s\? In 'ms' it would be of 2022-04-15\.$",
            marks=pytest.mark.tried("logs", "milliseconds read as s", "refused, with the unit that makes sense"),
        ),
        pytest.param(
            "ms", 1000, r"really ms\? In 'us' it would be of 2022-04-15\.$",
            marks=pytest.mark.tried("logs", "microseconds read as ms", "refused, with the unit that makes sense"),
        ),
        ("us", 1_000_000, r"really us\? In 'ns' it would be of 2022-04-15\.$"),
        ("ms", 1_000_000, r"really ms\? In 'ns' it would be of 2022-04-15\.$"),
        ("ms", 1500, r"really ms\? In 'us' it would be of 2048-06-05\.$"),
        ("ms", 4, r"really ms\?$"),
    ],
)  # fmt: skip
def test_a_unit_that_is_too_coarse_is_named(unit: str, factor: int, hint: str, tmp_path: Path) -> None:
    log = long_log(40).with_columns(pl.col("time") * factor)
    with pytest.raises(UserError, match=rf"row 1: {START * factor} is outside 1970..2100; is the time unit {hint}"):
        prepare_frame(log, tmp_path, dataclasses.replace(SPEC, time_unit=unit))


@pytest.mark.parametrize(
    ("birth", "doubt"),
    [
        pytest.param(
            START // 1000, "400 of 400 events are of items born 1970-01-20 to 1970-01-20; multiplied by 1,000",
            marks=pytest.mark.tried("logs", "item_birth in seconds", "warned, with what makes sense"),
        ),
        pytest.param(
            0, "400 of 400 events are of items born 1970-01-01 to 1970-01-01; no other unit makes sense",
            marks=pytest.mark.tried("logs", "item_birth of 0 where unknown", "warned"),
        ),
        (START * 1000, "400 of 400 events are of items born in the future"),
        # Films of before 1970 may be right.
        (-START // 10, ""),
        (START, ""),
    ],
)  # fmt: skip
def test_births_that_cannot_be_are_told(
    birth: int, doubt: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare_frame(long_log().with_columns(birth=pl.lit(birth, pl.Int64)), tmp_path)
    warned = [line for line in capfd.readouterr().err.splitlines() if "item_birth" in line]
    assert len(warned) == bool(doubt) and (not doubt or doubt in warned[0])
