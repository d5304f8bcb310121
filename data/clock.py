"""Times as text, and times of a day that name no zone.

Where clocks are put back, an hour happens twice: a time in it is that of its first. Where they are put forward, an hour
does not exist: a time in it is none.
"""

import polars as pl

from coldrank.data.errors import RowError, UserError

_ISO = r"^(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?(?:([Zz])|([+-])(\d\d)(?::?(\d\d))?)?$"
_LIKE = "should be a time like 2022-05-04T12:30:00Z or 2022-05-04 12:30"


def check_zone(zone: str) -> None:
    """Raises UserError for a time zone that is not known."""
    try:
        if not zone:
            raise pl.exceptions.ComputeError
        pl.select(pl.lit(0).cast(pl.Datetime("ms", "UTC")).dt.convert_time_zone(zone))
    except pl.exceptions.PolarsError:
        raise UserError(f"spec: time_zone={zone!r}; should be the name of one, like America/New_York") from None


def milliseconds_of_text(text: pl.Series, layout: str | None, zone: str | None, where: str) -> pl.Series:
    """Milliseconds since the epoch, int64 [N], of times as text; null of null. What is finer is cut off.

    layout: as strftime has it; None: ISO 8601, a day, or a day and a time, with an offset or without.
    zone: of times without an offset; None: UTC. Raises UserError with the row.
    """
    text = text.cast(pl.String).alias("")
    if layout is None:
        local, offset = _iso(text)
    else:
        # Polars takes no hour without minutes.
        hour = "%M" not in layout and any(c in layout for c in ("%H", "%I"))
        written, how = (text + pl.Series([" 00"]), f"{layout} %M") if hour else (text, layout)
        try:
            # strftime's %f has the digits of a fraction as they stand, which polars calls %.f.
            local = written.str.to_datetime(how.replace(".%f", "%.f"), time_unit="us", strict=False)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise UserError(f"{where}: time_format={layout!r}: {str(error).splitlines()[0]}") from None
        offset = pl.Series(values=[None] * len(text), dtype=pl.Int64)
        if isinstance(local.dtype, pl.Datetime) and local.dtype.time_zone:  # the layout has an offset
            local, offset = local.dt.replace_time_zone(None), offset.fill_null(0)
    like = _LIKE if layout is None else f"should be a time like {layout}"
    _refuse(text, local.is_null() & text.is_not_null(), where, like)
    moment = local.dt.epoch("ms") - offset * 60_000
    if zone is None:
        return moment.fill_null(local.dt.epoch("ms"))
    return moment.fill_null(_in_zone(local.set(offset.is_not_null(), None), text, zone, where))


def milliseconds_in_zone(values: pl.Series, zone: str, where: str) -> pl.Series:
    """The same of datetimes without a zone."""
    return _in_zone(values, values, zone, where)


def _in_zone(local: pl.Series, values: pl.Series, zone: str, where: str) -> pl.Series:
    known = local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    gone = f"is no time in {zone}, where clocks were put forward over it"
    _refuse(values, known.is_null() & local.is_not_null(), where, gone)
    return known.dt.epoch("ms")


def _iso(text: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Day and time, and minutes of the offset, null without one. Both null where the text is no ISO 8601."""
    parts = text.str.extract_groups(_ISO).struct.unnest()
    day, minute, second, fraction, utc, sign, hours, minutes = parts.iter_columns()
    frame = pl.DataFrame(
        {
            "text": day + pl.Series([" "]) + minute.fill_null("00:00") + pl.Series([":"]) + second.fill_null("00"),
            "us": fraction.fill_null("").str.pad_end(6, "0").str.slice(0, 6).cast(pl.Int64),
            "offset": hours.cast(pl.Int64) * 60 + minutes.fill_null("0").cast(pl.Int64),
            "west": sign == "-",
            "utc": utc.is_not_null(),
        }
    )
    moment = pl.col("text").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False)
    offset = pl.when("west").then(-pl.col("offset")).otherwise("offset")
    result = frame.select(
        local=moment + pl.duration(microseconds="us"), offset=pl.when("utc").then(0).otherwise(offset)
    )
    return result["local"], result["offset"]


def _refuse(values: pl.Series, bad: pl.Series, where: str, what: str) -> None:
    if bad.any():
        row = int(bad.arg_true()[0])
        raise RowError(where, row + 1, f"{str(values[row])!r} {what}")
