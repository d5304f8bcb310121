"""Which events are for training, validation and test."""

from datetime import date

import numpy as np
from numpy.typing import NDArray

from coldrank.data.errors import UserError
from coldrank.data.times import DAY_MS, Span, as_date

SPLITS = ("train", "valid", "test", "embargo")
TRAIN, VALID, TEST, EMBARGO = range(4)
# What a stream names in the place of a split: a period before it is trained on, and past periods.
NEXT, BACK = "next", "back"
# Of the events in the order of time, where days are few or thin: for test, and before it for validation.
TEST_SHARE = VALID_SHARE = 0.1
VALID_DAYS = 2
# A day's split is thin below this share of the events, unless it has so many.
_THIN, _ENOUGH = 0.01, 10_000


def split_by_time(
    time: NDArray[np.int64], day: NDArray[np.int32], test_from: date | None, valid_days: int
) -> NDArray[np.int8]:
    """Index into SPLITS for each event, int8 [N].

    time: int64 [N], ms since the epoch. day: int32 [N], days since the epoch in the log's own calendar.
    Test: the days from `test_from` on; None: the last two days of the log that don't lie apart (`times.Span`).
    Valid: the `valid_days` days of the log before.

    A log's days may overlap in time. An event of an earlier day that is not earlier than the first of test is
    embargoed: it counts in later counters, but is neither trained on nor tested. A training event that is not earlier
    than the first of validation goes to validation. So no training event is later than any of validation, and none of
    either is later than any of test.
    """
    days = Span.from_days(day).core
    first_test = _first_test_day(days, test_from)
    earlier = days[days < first_test]
    if len(earlier) <= valid_days:
        raise UserError(
            f"--valid-days {valid_days}: the log has {len(earlier)} days before {as_date(first_test)};"
            f" at least one must be left for training"
        )
    first_valid = earlier[-valid_days] if valid_days else first_test
    split = np.full(len(time), TRAIN, np.int8)
    split[day >= first_valid] = VALID
    split[day >= first_test] = TEST
    split[(split != TEST) & (time >= time[split == TEST].min())] = EMBARGO
    if valid_days and (split == VALID).any():
        split[(split == TRAIN) & (time >= time[split == VALID].min())] = VALID
    if not (split == TRAIN).any():
        first = as_date(time[split == TEST].min() // DAY_MS)
        raise UserError(
            f"--test-from {as_date(first_test)}: no event is left for training, as test begins with an event of"
            f" {first}; choose a later day, or mend its time"
        )
    return split


def serves_by_days(day: NDArray[np.int32], valid_days: int) -> bool:
    """Whether the last two days are enough for a test, those before them for validation, and any are left.

    Not where days are few, or thin: under 1% of the events, and under 10,000. day: int32 [N], of each event.
    """
    span = Span.from_days(day)
    rows = span.rows[~span.apart]
    if len(rows) < 3 + valid_days:
        return False
    parts = [rows[-2:]] + ([rows[-2 - valid_days : -2]] if valid_days else [])
    return all(part.sum() >= min(_THIN * rows.sum(), _ENOUGH) for part in parts)


def split_by_share(
    time: NDArray[np.int64], test_share: float = TEST_SHARE, valid_share: float = VALID_SHARE
) -> NDArray[np.int8]:
    """Index into SPLITS for each event, int8 [N], by shares of the events in the order of time.

    Events of one time are never in two splits: each split begins at the time that is nearest to its share.
    time: int64 [N], ascending.
    """
    options = f"--test-share {test_share} --valid-share {valid_share}"
    if not (test_share > 0 and valid_share >= 0 and test_share + valid_share < 1):
        raise UserError(f"{options}: should be shares that leave some events for training")
    # Where another time begins.
    starts = np.flatnonzero(np.diff(time)) + 1
    parts = 2 if valid_share else 1
    if len(starts) < parts:
        raise UserError(
            f"{options}: the events have {len(starts) + 1} different times; a split by time needs {parts + 1}"
            " (--split users holds out users)"
        )
    split = np.full(len(time), TRAIN, np.int8)
    first_test = _nearest(starts[parts - 1 :], len(time) * (1 - test_share))
    if valid_share:
        split[_nearest(starts[starts < first_test], len(time) * (1 - test_share - valid_share)) :] = VALID
    split[first_test:] = TEST
    return split


def _nearest(starts: NDArray[np.int64], wanted: float) -> int:
    return int(starts[np.abs(starts - wanted).argmin()])


def split_by_users(user: NDArray[np.int32], test_share: float, valid_share: float, seed: int) -> NDArray[np.int8]:
    """Index into SPLITS for each event, int8 [N]: whole users are held out. user: int32 [N], codes 0..U-1."""
    count = int(user.max()) + 1
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
    return by_user[user]


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
