"""What a log is as a whole: its days, its users and its rows. What splits and warnings rest on."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coldrank.data.events import Events, local_day
from coldrank.data.log import EventLog
from coldrank.data.split import EventTimes
from coldrank.data.times import DayTimes

Json = dict[str, Any]
_NO_DAYS = DayTimes.from_json([])


@dataclass(slots=True)
class Whole:
    """A log, chunk by chunk as it is seen."""

    days: DayTimes = _NO_DAYS
    """Its days in its own calendar."""
    utc_days: DayTimes = _NO_DAYS
    """Its days in UTC."""
    births: DayTimes = _NO_DAYS
    """The days in UTC of its items' births, by events."""
    other_days: int = 0
    """Events that are dated more than a day from their time."""
    events_read: int = 0
    """Rows of the log."""
    anonymous: int = 0
    """Events without a user."""
    duplicates: int = 0
    """Rows that equal an earlier one, dropped or not."""

    def see(self, events: Events, log: EventLog) -> None:
        """Takes a chunk."""
        self.days += DayTimes.of(events.day, events.time)
        self.anonymous += int(events.anonymous.sum())
        self.utc_days += DayTimes.of_times(events.time)
        self.births += DayTimes.of_times(events.birth.drop_nulls().to_numpy())
        by_time = events.frame.select(local_day(pl.col("time"), log.spec)).to_series().to_numpy()
        self.other_days += int((abs(events.day.astype(np.int64) - by_time) > 1).sum())

    def add(self, other: "Whole") -> None:
        """Takes what was seen of other chunks."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    @property
    def events(self) -> int:
        """Its events, without dropped duplicates."""
        return self.days.events

    @property
    def last(self) -> int:
        """The time of the last event, ms."""
        return int(self.days.last.max())

    def to_json(self) -> Json:
        return {
            "days": self.days.to_json(),
            "utc_days": self.utc_days.to_json(),
            "births": self.births.to_json(),
            "other_days": self.other_days,
            "events_read": self.events_read,
            "anonymous": self.anonymous,
            "duplicates": self.duplicates,
        }

    @classmethod
    def from_json(cls, value: Json) -> "Whole":
        days, utc_days, births = (DayTimes.from_json(value[n]) for n in ("days", "utc_days", "births"))
        counts = {n: value[n] for n in ("other_days", "events_read", "duplicates")}
        # Folders of before have none.
        return cls(days=days, utc_days=utc_days, births=births, anonymous=value.get("anonymous", 0), **counts)


def write_times(path: Path, times: NDArray[np.int64]) -> None:
    """Adds the times of events in order to a file, raw int64 in the machine's order of bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(times.tobytes())


def read_times(paths: list[Path]) -> EventTimes:
    """Files of `write_times`, mapped."""
    return EventTimes([np.memmap(path, np.int64, "r") for path in paths])


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What a rule of splitting may look at."""

    whole: Whole
    """The log."""
    times: EventTimes
    """The times of all events."""
    users: NDArray[np.int64]
    """The ids of all users, ascending."""

    @property
    def days(self) -> DayTimes:
        """The log's days in its own calendar."""
        return self.whole.days
