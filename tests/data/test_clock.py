"""Times as text and in zones: the moments that they are, days of 23 and of 25 hours, and hours that are none."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from event_logs import DAY_MS, START

from coldrank.data.columns import ColumnPlan, convert
from coldrank.data.errors import UserError
from coldrank.data.events import local_day
from coldrank.data.log import LogSpec, check_spec
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, append, prepare
from coldrank.data.split import split_by_time
from coldrank.data.spool import load_events

NEW_YORK = "America/New_York"
SPEC = LogSpec(user="user", item="item", time="time", tasks={"click": "click"})


def moment(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]


TEXTS: list[tuple[str, str | None, str | None, int]] = [
    ("2022-05-04", None, None, moment(2022, 5, 4)),
    ("2022-05-04 12:30", None, None, moment(2022, 5, 4, 12, 30)),
    ("2022-05-04T12:30:15Z", None, NEW_YORK, moment(2022, 5, 4, 12, 30, 15)),
    ("2022-05-04T12:30:15.1239+02:00", None, None, moment(2022, 5, 4, 10, 30, 15) + 123),
    ("2022-05-04 12:30:15,5-0330", None, None, moment(2022, 5, 4, 16, 0, 15) + 500),
    ("2022-05-04 12:30:15+02", None, NEW_YORK, moment(2022, 5, 4, 10, 30, 15)),
    ("2022-05-04 12:30", None, NEW_YORK, moment(2022, 5, 4, 16, 30)),
    ("2022-12-04 12:30", None, NEW_YORK, moment(2022, 12, 4, 17, 30)),
    ("2022-05-04", None, "Asia/Kathmandu", moment(2022, 5, 3, 18, 15)),
    ("4.5.2022 12:30", "%d.%m.%Y %H:%M", NEW_YORK, moment(2022, 5, 4, 16, 30)),
    ("22050412", "%y%m%d%H", None, moment(2022, 5, 4, 12)),
    ("4.5.2022 1 PM", "%d.%m.%Y %I %p", None, moment(2022, 5, 4, 13)),
    ("20220504123015", "%Y%m%d%H%M%S", None, moment(2022, 5, 4, 12, 30, 15)),
    ("20220504", "%Y%m%d", None, moment(2022, 5, 4)),
    ("04/May/2022:12:30:15 +0200", "%d/%b/%Y:%H:%M:%S %z", NEW_YORK, moment(2022, 5, 4, 10, 30, 15)),
    ("2022-05-04 12:30:15.25", "%Y-%m-%d %H:%M:%S.%f", None, moment(2022, 5, 4, 12, 30, 15) + 250),
    # The hour from 1 to 2 happens twice: it is the first.
    ("2022-11-06 01:30", None, NEW_YORK, moment(2022, 11, 6, 5, 30)),
    ("2022-11-06 01:30-05:00", None, NEW_YORK, moment(2022, 11, 6, 6, 30)),
    ("2022-11-06 02:00", None, NEW_YORK, moment(2022, 11, 6, 7)),
]


@pytest.mark.parametrize(
    ("text", "layout", "zone", "wanted"),
    [
        pytest.param(
            *t, marks=pytest.mark.tried("logs", f"a time `{t[0]}`, {t[1] or 'ISO'}, zone {t[2]}", "its moment")
        )
        for t in TEXTS
    ],
)
def test_text_is_its_moment(text: str, layout: str | None, zone: str | None, wanted: int) -> None:
    values = pl.Series("x", [text] * 2)
    plan = ColumnPlan("time", "time", "x", "ms", layout, zone)
    assert convert(plan, values, Path("a")).to_list() == [wanted] * 2
    if text.isdecimal():
        assert convert(plan, values.cast(pl.Int64), Path("a")).to_list() == [wanted] * 2


@pytest.mark.parametrize(
    ("values", "layout", "zone", "message"),
    [
        pytest.param(*r, marks=pytest.mark.tried("logs", f"times: {g}", "refused, with the row"))
        for g, *r in [
            (
                "an hour that clocks were put over",
                ["2022-03-13 02:30"],
                None,
                NEW_YORK,
                "'2022-03-13 02:30' is no time in",
            ),
            ("a day that there is not", ["2022-02-30"], None, None, "'2022-02-30' should be a time like 2022"),
            ("the hour 24", ["2022-02-03 24:00"], None, None, "'2022-02-03 24:00' should be a time like 2022"),
            ("`now`", ["now"], None, None, "'now' should be a time like 2022-05-04T12:30:00Z"),
            ("of another format", ["2022-05-04"], "%d.%m.%Y", None, "'2022-05-04' should be a time like %d.%m.%Y"),
            ("of 1969", ["1969-05-04"], None, None, "'1969-05-04' is outside 1970..2100$"),
            ("text without a value", [""], None, None, "'' should be a time like"),
        ]
    ],
)
def test_other_text_is_named(values: list[Any], layout: str | None, zone: str | None, message: str) -> None:
    good = "2022-05-04" if layout is None else "4.5.2022"
    with pytest.raises(UserError, match=rf"^a: column x \(time\), row 2: {message}"):
        convert(ColumnPlan("time", "time", "x", "ms", layout, zone), pl.Series("x", [good, *values]), Path("a"))


def test_an_hour_alone_that_there_is_not_is_named() -> None:
    with pytest.raises(UserError, match=r"^a: column x \(time\), row 2: '22050425' should be a time like %y%m%d%H$"):
        convert(ColumnPlan("time", "time", "x", "ms", "%y%m%d%H"), pl.Series("x", [22050412, 22050425]), Path("a"))


def test_a_format_is_of_text() -> None:
    for values in ([0.5], [datetime(2022, 5, 4)]):
        with pytest.raises(UserError, match="time_format is of text and of whole numbers"):
            convert(ColumnPlan("time", "time", "x", "ms", "%Y"), pl.Series("x", values), Path("a"))


@pytest.mark.tried("logs", "datetimes without a zone, time_zone=America/New_York", "read as of there")
def test_datetimes_without_a_zone_are_of_the_spec_s() -> None:
    plan = ColumnPlan("time", "time", "x", "ms", None, NEW_YORK)
    local = pl.Series("x", [datetime(2022, 5, 4, 12, 30)])
    assert convert(plan, local, Path("a")).to_list() == [moment(2022, 5, 4, 16, 30)]
    assert convert(plan, local.dt.replace_time_zone("UTC"), Path("a")).to_list() == [moment(2022, 5, 4, 12, 30)]
    with pytest.raises(UserError, match="row 1: '2022-03-13 02:30:00' is no time in America/New_York"):
        convert(plan, pl.Series("x", [datetime(2022, 3, 13, 2, 30)]), Path("a"))


@pytest.mark.parametrize("zone", [NEW_YORK, "Australia/Lord_Howe", "Asia/Kathmandu"])
def test_days_are_those_of_the_zone(zone: str) -> None:
    """Every quarter of an hour of a year, so also of days of 23 and of 25 hours."""
    times = np.arange(moment(2022, 1, 1), moment(2023, 1, 1), 900_000)
    found = pl.select(local_day(pl.lit(pl.Series(times)), replace(SPEC, time_zone=zone))).to_series()
    place = ZoneInfo(zone)
    wanted = [datetime.fromtimestamp(t / 1000, place).date().toordinal() - 719_163 for t in times.tolist()]
    assert found.dtype == pl.Int32 and found.to_list() == wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(*r, marks=pytest.mark.tried("logs", f"a spec with {g}", "refused"))
        for g, *r in [
            (
                "a time zone and an offset",
                {"time_zone": NEW_YORK, "utc_offset_h": -5},
                "utc_offset_h=-5 beside time_zone=",
            ),
            (
                "a time zone that there is not",
                {"time_zone": "Mars/Base"},
                "time_zone='Mars/Base'; should be the name of one",
            ),
            (
                "a time format and a unit",
                {"time_format": "%Y", "time_unit": "s"},
                "time_unit='s': has no effect beside",
            ),
        ]
    ],
)
def test_fields_that_contradict(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"spec: {message}"):
        check_spec(replace(SPEC, **change))


def log(hours: int, first: int = 0) -> str:
    """An event an hour, dated in New York, around the end of summer time."""
    place = ZoneInfo(NEW_YORK)
    times = [
        datetime.fromtimestamp((moment(2022, 11, 4) + 3_600_000 * (first + h)) / 1000, place) for h in range(hours)
    ]
    return "user,item,time,click,on\n" + "".join(f"{t.hour},1,{t.isoformat()},1,{t.date()}\n" for t in times)


@pytest.mark.tried("logs", "CSV of ISO times, days of a zone, --append", "the days of the zone, as all at once")
def test_a_log_in_a_zone(tmp_path: Path) -> None:
    split = lambda known: split_by_time(known.days, None, 0)
    options = PrepareOptions(history=2, arguments={"split": "time"})
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a.csv").write_text(log(90))
    by_zone = replace(SPEC, time_zone=NEW_YORK)
    prepare(open_log(tmp_path / "log", by_zone), tmp_path / "out", split, options)
    (tmp_path / "log" / "b.csv").write_text(log(40, 90))
    content = append(open_log(tmp_path / "log", by_zone), tmp_path / "out", split, options)
    whole = prepare(open_log(tmp_path / "log", replace(by_zone, day="on")), tmp_path / "all", split, options)
    assert content is not None
    rows = {p["period"]: p["rows"] for p in content["partitions"]}
    assert rows == {p["period"]: p["rows"] for p in whole["partitions"]}
    assert rows["2022-11-05"] == 24 and rows["2022-11-06"] == 25
    with pytest.raises(UserError, match="spec: column 'time': .*Asia/Tokyo, but .*America/New_York when"):
        append(open_log(tmp_path / "log", replace(by_zone, time_zone="Asia/Tokyo")), tmp_path / "out", split, options)


def test_births_of_text(tmp_path: Path) -> None:
    born = datetime.fromtimestamp(START / 1000 - 7200, UTC).isoformat()
    (tmp_path / "a.csv").write_text(f"user,item,time,click,born\n1,2,{START},1,{born}\n1,3,{START + DAY_MS},1,\n")
    events = load_events(open_log(tmp_path, replace(SPEC, item_birth="born")))
    assert events.birth.to_list() == [START - 7_200_000, None]
