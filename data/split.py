"""Which events are for training, validation and test."""

from dataclasses import dataclass
from datetime import date
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coldrank.data.errors import UserError
from coldrank.data.events import Events
from coldrank.data.times import DAY_MS, DayTimes, Span, as_date

SPLITS = ("train", "valid", "test", "embargo")
TRAIN, VALID, TEST, EMBARGO = range(4)
# What a stream names in the place of a split: a period before it is trained on, and past periods.
NEXT, BACK = "next", "back"
# Of the events in the order of time, where days are few or thin: for test, and before it for validation.
TEST_SHARE = VALID_SHARE = 0.1
VALID_DAYS = 2
# A day's split is thin below this share of the events, unless it has so many.
_THIN, _ENOUGH = 0.01, 10_000


# In the place of a day or time: there is none.
_NEVER = np.iinfo(np.int64).max


class Split(Protocol):
    """Which split an event is of."""

    def of(self, events: Events) -> NDArray[np.int8]:
        """Index into SPLITS for each event, int8 [N]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeSplit:
    """A split by days or by times."""

    valid_day: int = _NEVER
    """The first day of validation."""
    test_day: int = _NEVER
    """The first day of test."""
    valid_time: int = _NEVER
    """From this time on nothing is for training."""
    test_time: int
    """From this time on all is for test; where there is a day, what is of earlier days is embargoed."""

    def of(self, events: Events) -> NDArray[np.int8]:
        return self.at(events.time, events.day)

    def at(self, time: NDArray[np.int64], day: NDArray[np.integer]) -> NDArray[np.int8]:
        """Index into SPLITS, int8 [N]. time: int64 [N], ms. day: integers [N]."""
        split = np.where((day >= self.valid_day) | (time >= self.valid_time), VALID, TRAIN).astype(np.int8)
        split[time >= self.test_time] = TEST if self.test_day == _NEVER else EMBARGO
        split[day >= self.test_day] = TEST
        return split


@dataclass(frozen=True, slots=True)
class UserSplit:
    """Whole users are held out."""

    users: NDArray[np.int64]
    """Ids, int64 [U], ascending."""
    split: NDArray[np.int8]
    """Index into SPLITS for each, int8 [U]."""

    def of(self, events: Events) -> NDArray[np.int8]:
        split = np.full(len(events.time), TRAIN, np.int8)  # also of anonymous events
        split[~events.anonymous] = self.split[np.searchsorted(self.users, events.known_users)]
        return split


@dataclass(frozen=True, slots=True)
class EventTimes:
    """The times of all events in order. Those of one time lie in one part."""

    parts: list[NDArray[np.int64]]
    """None of them empty."""

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def run(self, row: int) -> tuple[int, int]:
        """The events of the same time as one: their first, and the first after them."""
        before = 0
        for part in self.parts:
            if row < before + len(part):
                time = part[row - before]
                return before + int(np.searchsorted(part, time)), before + int(np.searchsorted(part, time, "right"))
            before += len(part)
        raise IndexError(row)

    def at(self, row: int) -> int:
        """The time of an event."""
        for part in self.parts:
            if row < len(part):
                return int(part[row])
            row -= len(part)
        raise IndexError(row)


def split_by_time(days: DayTimes, test_from: date | None, valid_days: int) -> TimeSplit:
    """days: of the log's events, in its own calendar.

    Test: the days from `test_from` on; None: the last two days of the log that don't lie apart (`times.Span`).
    Valid: the `valid_days` days of the log before.

    A log's days may overlap in time. An event of an earlier day that is not earlier than the first of test is
    embargoed: it counts in later counters, but is neither trained on nor tested. A training event that is not earlier
    than the first of validation goes to validation. So no training event is later than any of validation, and none of
    either is later than any of test.
    """
    core = Span.from_rows(days.days, days.rows).core
    first_test = _first_test_day(core, test_from)
    earlier = core[core < first_test]
    if len(earlier) <= valid_days:
        raise UserError(
            f"--valid-days {valid_days}: the log has {len(earlier)} days before {as_date(first_test)};"
            f" at least one must be left for training"
        )
    first_valid = int(earlier[-valid_days]) if valid_days else first_test
    test_time = int(days.first[days.days >= first_test].min())
    validated = days.first[(days.days >= first_valid) & (days.days < first_test)]
    valid_time = int(validated.min(initial=_NEVER))
    if valid_time >= test_time:
        valid_time = _NEVER
    if days.first[days.days < first_valid].min(initial=_NEVER) >= min(test_time, valid_time):
        raise UserError(
            f"--test-from {as_date(first_test)}: no event is left for training, as test begins with an event of"
            f" {as_date(test_time // DAY_MS)}; choose a later day, or mend its time"
        )
    return TimeSplit(valid_day=first_valid, test_day=first_test, valid_time=valid_time, test_time=test_time)


def serves_by_days(days: DayTimes, valid_days: int) -> bool:
    """Whether the last two days are enough for a test, those before them for validation, and any are left.

    Not where days are few, or thin: under 1% of the events, and under 10,000. days: of the log's events.
    """
    span = Span.from_rows(days.days, days.rows)
    rows = span.rows[~span.apart]
    if len(rows) < 3 + valid_days:
        return False
    parts = [rows[-2:]] + ([rows[-2 - valid_days : -2]] if valid_days else [])
    return all(part.sum() >= min(_THIN * rows.sum(), _ENOUGH) for part in parts)


def split_by_share(times: EventTimes, test_share: float = TEST_SHARE, valid_share: float = VALID_SHARE) -> TimeSplit:
    """By shares of the events in the order of time.

    Events of one time are never in two splits: each split begins at the time that is nearest to its share.
    """
    options = f"--test-share {test_share} --valid-share {valid_share}"
    if not (test_share > 0 and valid_share >= 0 and test_share + valid_share < 1):
        raise UserError(f"{options}: should be shares that leave some events for training")
    events = len(times)
    parts = 2 if valid_share else 1
    # Where another time begins, up to `parts` of them.
    starts: list[int] = []
    while len(starts) < parts and (end := times.run(starts[-1] if starts else 0)[1]) < events:
        starts.append(end)
    if len(starts) < parts:
        raise UserError(
            f"{options}: the events have {len(starts) + 1} different times; a split by time needs {parts + 1}"
            " (--split users holds out users)"
        )
    first_test = _nearest(times, events * (1 - test_share), starts[-1], events)
    if not valid_share:
        return TimeSplit(test_time=times.at(first_test))
    first_valid = _nearest(times, events * (1 - test_share - valid_share), starts[0], first_test)
    return TimeSplit(valid_time=times.at(first_valid), test_time=times.at(first_test))


def _nearest(times: EventTimes, wanted: float, low: int, high: int) -> int:
    """Of the events from `low` to before `high` that begin a time: the nearest; the first of two."""
    top = times.run(high - 1)[0]
    near = [min(max(n, low), top) for n in times.run(min(int(wanted), len(times) - 1))]
    return min(near, key=lambda n: (abs(n - wanted), n))


def split_by_users(users: NDArray[np.int64], test_share: float, valid_share: float, seed: int) -> UserSplit:
    """Whole users are held out. users: their ids, int64 [U], ascending."""
    count = len(users)
    options = f"--test-share {test_share} --valid-share {valid_share}"
    if not (0 < test_share < 1 and 0 <= valid_share < 1):
        raise UserError(f"{options}: should be shares, 0 to 1")
    shuffled = np.random.default_rng(seed).permutation(count)
    tested, validated = round(count * test_share), round(count * valid_share)
    if not (0 < tested and tested + validated < count):
        raise UserError(
            f"{options}: {tested} and {validated} of {count} users;"
            " should leave at least one user for test and one for training"
        )
    by_user = np.full(count, TRAIN, np.int8)
    by_user[shuffled[:tested]] = TEST
    by_user[shuffled[tested : tested + validated]] = VALID
    return UserSplit(users, by_user)


def _first_test_day(days: NDArray[np.int64], test_from: date | None) -> int:
    if test_from is None:
        if len(days) < 3:
            raise UserError(f"the log has {len(days)} days; a split by time needs 3: training and two of test")
        return int(days[-2])
    wanted = test_from.toordinal() - date(1970, 1, 1).toordinal()
    if not days[0] < wanted <= days[-1]:
        raise UserError(
            f"--test-from {test_from}: should be a day after {as_date(days[0])} and not after {as_date(days[-1])},"
            " the first and last of the log"
        )
    return wanted
