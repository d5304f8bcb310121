"""Whether the times of a log can be what they are taken for: its span, days that lie apart, and the unit."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Unit = Literal["s", "ms", "us", "ns"]
_UNITS: tuple[Unit, ...] = ("s", "ms", "us", "ns")
DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1)
# Logs of what people do on screens begin no earlier.
_FIRST_YEAR = 1990
# Days lie apart after a gap this long, and this many times as long as the log's gaps usually are...
_GAP_DAYS, _GAPS = 30, 30
# ...if they hold at most this share of the events, or this many and a tenth.
_FEW_SHARE, _FEW_ROWS = 0.01, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """The D days of a log that have events."""

    days: NDArray[np.int64]
    """Days since 1970, int64 [D], ascending."""
    rows: NDArray[np.int64]
    """Events of each day, int64 [D]."""
    apart: NDArray[np.bool_]
    """Which days lie far from the others and hold next to nothing, bool [D]."""

    @classmethod
    def from_days(cls, day: NDArray[np.integer]) -> "Span":
        """day: the day of every event, integers [N]."""
        days, rows = np.unique(day.astype(np.int64), return_counts=True)
        gaps = np.diff(days)
        apart = np.zeros(len(days), bool)
        # The lower quartile: where days are few, the odd gaps are many.
        usual = np.quantile(gaps, 0.25, method="lower") if len(gaps) else 0
        wide = gaps > max(_GAP_DAYS, _GAPS * usual)
        few = max(_FEW_SHARE * rows.sum(), min(_FEW_ROWS, 0.1 * rows.sum()))
        before = np.flatnonzero(wide & (np.cumsum(rows)[:-1] <= few))
        after = np.flatnonzero(wide & (np.cumsum(rows[::-1])[::-1][1:] <= few))
        if len(before):
            apart[: before[-1] + 1] = True
        if len(after):
            apart[after[0] + 1 :] = True
        return cls(days=days, rows=rows, apart=apart)

    @property
    def core(self) -> NDArray[np.int64]:
        """The days that don't lie apart, int64."""
        return self.days[~self.apart]

    @property
    def first(self) -> date:
        """The first day that doesn't lie apart."""
        return as_date(self.core[0])

    @property
    def last(self) -> date:
        """The last day that doesn't lie apart."""
        return as_date(self.core[-1])

    def __str__(self) -> str:
        days = len(self.core)
        return f"{self.first} to {self.last}, {days:,} day{'s' * (days != 1)} with events"

    def days_apart(self) -> str:
        """The days that lie apart, with their events; empty if there are none."""
        days = [f"{as_date(d)} ({n:,})" for d, n in zip(self.days[self.apart], self.rows[self.apart], strict=True)]
        return ", ".join(days[:5]) + (f" and {len(days) - 5} more days" if len(days) > 5 else "")


def time_doubts(time: NDArray[np.int64], unit: Unit | None, today: date) -> list[str]:
    """Why times, int64 [N] in ms, cannot be what they are taken for, and what would make sense.

    unit: the unit that they were read in; None where it is not known, as of datetimes.
    """
    span = Span.from_days(time // DAY_MS)
    doubts = []
    if days := span.days_apart():
        many = int(span.rows[span.apart].sum())
        doubts.append(
            f"{_events(many, len(time))} far from all others, which are of {span.first} to {span.last}: {days}"
        )
    near = time[np.isin(time // DAY_MS, span.core)]
    old = near[near < _ms(date(_FIRST_YEAR, 1, 1))]
    if len(old):
        text = f"{_events(len(old), len(time))} of {_days(old, 1)}, long before there were such logs"
        doubts.append(f"{text}; {_remedy(old, unit, today)}")
    late = near[near >= _ms(today + timedelta(days=2))]
    if len(late):
        doubts.append(f"{_events(len(late), len(time))} of the future: {_days(late, 1)}")
    return doubts


def birth_doubts(birth: NDArray[np.int64], today: date) -> list[str]:
    """The same of the known births of the events' items, int64 [N] in ms.

    In doubt are the first weeks of 1970, where seconds and unknowns (0) end up, and the future. Births before 1970 may
    be right.
    """
    old = birth[(birth >= 0) & (birth < _ms(date(1970, 3, 1)))]
    doubts = []
    if len(old):
        doubts.append(f"{_events(len(old), len(birth))} of items born {_days(old, 1)}; {_remedy(old, None, today)}")
    if late := int((birth >= _ms(today + timedelta(days=2))).sum()):
        doubts.append(f"{_events(late, len(birth))} of items born in the future")
    return doubts


def wanted_unit(value: float, unit: Unit) -> str:
    """In which other unit a number, outside 1970..2100 in its own, would be of 1990 to 2100; empty if in none."""
    for other in _UNITS:
        ms = value * 1000 / 1000 ** _UNITS.index(other)
        if other != unit and _ms(date(_FIRST_YEAR, 1, 1)) <= ms < _ms(date(2100, 1, 1)):
            return f" In {other!r} it would be of {as_date(int(ms) // DAY_MS)}."
    return ""


def _events(count: int, events: int) -> str:
    return f"{count:,} of {events:,} events {'is' if count == 1 else 'are'}"


def _days(time: NDArray[np.int64], factor: int) -> str:
    first, last = (as_date(int(t) * factor // DAY_MS) for t in (time.min(), time.max()))
    return f"{first} to {last}"


def _remedy(old: NDArray[np.int64], unit: Unit | None, today: date) -> str:
    for power in (1, 2, 3):
        factor = 1000**power
        if (
            int(old.min()) * factor >= _ms(date(_FIRST_YEAR, 1, 1))
            and int(old.max()) * factor < _ms(today) + 2 * DAY_MS
        ):
            if unit is not None and _UNITS.index(unit) >= power:
                how = f"with time_unit={_UNITS[_UNITS.index(unit) - power]!r} in the place of {unit!r}"
            else:
                how = f"multiplied by {factor:,} (were seconds taken for milliseconds?)"
            return f"{how} they would be of {_days(old, factor)}"
    return "no other unit makes sense of them"


def _ms(day: date) -> int:
    return (day - _EPOCH).days * DAY_MS


def as_date(days: int | np.integer) -> date:
    """A day since 1970 as a date."""
    return date.fromordinal(_EPOCH.toordinal() + int(days))


def today() -> date:
    """The day in UTC."""
    return datetime.now(UTC).date()
