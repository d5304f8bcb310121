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
class DayTimes:
    """The D days that some events are of."""

    days: NDArray[np.int64]
    """Days since 1970, int64 [D], ascending."""
    rows: NDArray[np.int64]
    """Events of each day, int64 [D]."""
    first: NDArray[np.int64]
    """The earliest time of an event of each day, int64 [D]."""
    last: NDArray[np.int64]
    """The latest."""

    @classmethod
    def of(cls, day: NDArray[np.integer], time: NDArray[np.int64]) -> "DayTimes":
        """day, time: of every event, integers [N]."""
        ones = np.ones(len(day), np.int64)
        return cls._grouped(day.astype(np.int64), ones, time, time)

    @classmethod
    def of_times(cls, time: NDArray[np.int64]) -> "DayTimes":
        """By the days in UTC of times in ms, int64 [N]."""
        return cls.of(time // DAY_MS, time)

    def __add__(self, other: "DayTimes") -> "DayTimes":
        """Of the events of both."""
        return self._grouped(
            *(np.concatenate([getattr(self, n), getattr(other, n)]) for n in ("days", "rows", "first", "last"))
        )

    @classmethod
    def _grouped(
        cls,
        days: NDArray[np.int64],
        rows: NDArray[np.int64],
        first: NDArray[np.int64],
        last: NDArray[np.int64],
    ) -> "DayTimes":
        order = np.argsort(days, kind="stable")
        days, rows, first, last = days[order], rows[order], first[order], last[order]
        begins = np.flatnonzero(np.diff(days, prepend=days[0] - 1)) if len(days) else np.empty(0, np.int64)
        if not len(begins):
            return cls(days=days, rows=rows, first=first, last=last)
        return cls(
            days=days[begins],
            rows=np.add.reduceat(rows, begins),
            first=np.minimum.reduceat(first, begins),
            last=np.maximum.reduceat(last, begins),
        )

    def where(self, days: NDArray[np.bool_]) -> "DayTimes":
        """Some of the days. days: bool [D]."""
        return DayTimes(days=self.days[days], rows=self.rows[days], first=self.first[days], last=self.last[days])

    @property
    def events(self) -> int:
        """How many events."""
        return int(self.rows.sum())

    def to_json(self) -> list[list[int]]:
        """A list of day, rows, first and last time."""
        return np.stack([self.days, self.rows, self.first, self.last], 1).tolist()

    @classmethod
    def from_json(cls, value: list[list[int]]) -> "DayTimes":
        days, rows, first, last = np.array(value, np.int64).reshape(-1, 4).T
        return cls(days=days, rows=rows, first=first, last=last)


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
        return cls.from_rows(*np.unique(day.astype(np.int64), return_counts=True))

    @classmethod
    def from_rows(cls, days: NDArray[np.int64], rows: NDArray[np.int64]) -> "Span":
        """days: int64 [D], ascending. rows: events of each, int64 [D]."""
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


def time_doubts(times: DayTimes, unit: Unit | None, today: date) -> list[str]:
    """Why times in ms cannot be what they are taken for, and what would make sense.

    times: by days in UTC. unit: the unit that they were read in; None where it is not known, as of datetimes.
    """
    span = Span.from_rows(times.days, times.rows)
    doubts = []
    if days := span.days_apart():
        many = int(span.rows[span.apart].sum())
        doubts.append(
            f"{_events(many, times.events)} far from all others, which are of {span.first} to {span.last}: {days}"
        )
    near = times.where(~span.apart)
    old = near.where(near.days < _day(date(_FIRST_YEAR, 1, 1)))
    if old.events:
        text = f"{_events(old.events, times.events)} of {_days(old, 1)}, long before there were such logs"
        doubts.append(f"{text}; {_remedy(old, unit, today)}")
    late = near.where(near.days >= _day(today + timedelta(days=2)))
    if late.events:
        doubts.append(f"{_events(late.events, times.events)} of the future: {_days(late, 1)}")
    return doubts


def birth_doubts(births: DayTimes, today: date) -> list[str]:
    """The same of the known births of the events' items.

    In doubt are the first weeks of 1970, where seconds and unknowns (0) end up, and the future. Births before 1970 may
    be right.
    """
    old = births.where((births.days >= 0) & (births.days < _day(date(1970, 3, 1))))
    doubts = []
    if old.events:
        doubts.append(
            f"{_events(old.events, births.events)} of items born {_days(old, 1)}; {_remedy(old, None, today)}"
        )
    if late := births.where(births.days >= _day(today + timedelta(days=2))).events:
        doubts.append(f"{_events(late, births.events)} of items born in the future")
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


def _days(times: DayTimes, factor: int) -> str:
    first, last = (as_date(int(t) * factor // DAY_MS) for t in (times.first.min(), times.last.max()))
    return f"{first} to {last}"


def _remedy(old: DayTimes, unit: Unit | None, today: date) -> str:
    for power in (1, 2, 3):
        factor = 1000**power
        if (
            int(old.first.min()) * factor >= _ms(date(_FIRST_YEAR, 1, 1))
            and int(old.last.max()) * factor < _ms(today) + 2 * DAY_MS
        ):
            if unit is not None and _UNITS.index(unit) >= power:
                how = f"with time_unit={_UNITS[_UNITS.index(unit) - power]!r} in the place of {unit!r}"
            else:
                how = f"multiplied by {factor:,} (were seconds taken for milliseconds?)"
            return f"{how} they would be of {_days(old, factor)}"
    return "no other unit makes sense of them"


def _ms(day: date) -> int:
    return _day(day) * DAY_MS


def _day(day: date) -> int:
    return (day - _EPOCH).days


def as_date(days: int | np.integer) -> date:
    """A day since 1970 as a date."""
    return date.fromordinal(_EPOCH.toordinal() + int(days))


def today() -> date:
    """The day in UTC."""
    return datetime.now(UTC).date()
