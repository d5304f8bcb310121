"""How a column of times is written."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import time
from typing import Literal, get_args

import polars as pl

from coldrank.data.clock import milliseconds_of_text
from coldrank.data.errors import UserError
from coldrank.data.ids import is_text
from coldrank.data.times import DAY_MS

Unit = Literal["s", "ms", "us", "ns"]
_PER_MS = {"s": 0.001, "ms": 1, "us": 1_000, "ns": 1_000_000}
_DAYS = (
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%m %d, %Y",
)
_CLOCKS = (" %H:%M:%S", " %H:%M:%S.%f", " %H:%M", " %I:%M:%S %p", " %I:%M %p", ", %I:%M:%S %p", "T%H:%M:%S", "")
_WHOLE = ("%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %Y")
# Of digits alone, by how many there are.
_DIGITS = {8: ("%Y%m%d", "%y%m%d%H"), 10: ("%Y%m%d%H",), 12: ("%Y%m%d%H%M",), 14: ("%Y%m%d%H%M%S",)}
# Where times of logs lie, 1990 to 2035.
_FIRST_MS, _LAST_MS = 631_152_000_000, 2_051_222_400_000
_LOOKED = 2_000


@dataclass(frozen=True, slots=True)
class Clock:
    """How times are read: fields of a LogSpec."""

    unit: Unit = "ms"
    layout: str | None = None
    """None: a number, a datetime, or ISO 8601."""
    sure: bool = True
    """Whether no other layout fits as well."""


def clock(values: pl.Series) -> Clock | None:
    """How the times of a column are written; None: it holds none."""
    some = values.drop_nulls().unique(maintain_order=True)
    if some.is_empty():
        return None
    some = some.gather_every(max(1, len(some) // _LOOKED))
    if some.dtype == pl.Date or isinstance(some.dtype, pl.Datetime):
        return Clock()
    if is_text(some.dtype) and some.dtype != pl.Binary:
        return _of_text(some.cast(pl.String))
    return _of_number(some) if some.dtype.is_numeric() else None


def whole_days(values: pl.Series, how: Clock) -> bool:
    """Whether the times tell days alone."""
    known = values.drop_nulls()
    if how.layout:
        return not {"%H", "%I"} & set(re.findall("%.", how.layout))
    if is_text(known.dtype):
        return known.cast(pl.String).str.len_chars().max() == len("2022-05-04")
    if known.dtype.is_numeric():
        return bool((known % round(DAY_MS * _PER_MS[how.unit]) == 0).all())
    return known.dtype == pl.Date or bool((known.dt.time() == time(0)).all())


def _of_number(values: pl.Series) -> Clock | None:
    low, high = float(values.min()), float(values.max())  # type: ignore[arg-type]
    for unit in get_args(Unit):
        if low / _PER_MS[unit] >= _FIRST_MS and high / _PER_MS[unit] <= _LAST_MS:
            return Clock(unit)
    if not values.dtype.is_integer():
        return None
    text = values.cast(pl.String)
    fits = [layout for layout in _DIGITS.get(len(text[0]), ()) if _moments(text, layout) is not None]
    return Clock(layout=fits[0], sure=len(fits) == 1) if fits else None


def _of_text(values: pl.Series) -> Clock | None:
    if _moments(values, None) is not None:
        return Clock()
    read = {layout: moments for layout in _layouts(values) if (moments := _moments(values, layout)) is not None}
    if not read:
        return None
    # With day and month in each other's place, the days of a month lie all over the year.
    best = min(read, key=lambda layout: _days(read[layout]))
    others = [m for m in read.values() if not m.equals(read[best])]
    return Clock(layout=best, sure=all(_days(m) > 2 * _days(read[best]) + 2 for m in others))


def _layouts(values: pl.Series) -> Iterator[str]:
    yield from _WHOLE
    yield from (day + rest for day in _DAYS for rest in _CLOCKS)
    if values.str.contains(r"^[0-9]+$").all():
        yield from (layout for of in _DIGITS.values() for layout in of)


def _moments(text: pl.Series, layout: str | None) -> pl.Series | None:
    """The times, in ms; None: these are not times of the layout."""
    try:
        if milliseconds_of_text(text.head(20), layout, None, "").is_null().any():
            return None
        moments = milliseconds_of_text(text, layout, None, "")
    except UserError:
        return None
    return moments if moments.is_between(_FIRST_MS, _LAST_MS).all() else None


def _days(moments: pl.Series) -> int:
    """From the first day to the last."""
    low, high = int(moments.min()), int(moments.max())  # type: ignore[arg-type]
    return (high - low) // DAY_MS
