"""Which events are for training, validation and test."""

from datetime import date

import numpy as np
from numpy.typing import NDArray

from coldrank.train.errors import UserError

SPLITS = ("train", "valid", "test", "embargo")
TRAIN, VALID, TEST, EMBARGO = range(4)
# What a stream names in the place of a split: a period before it is trained on, and past periods.
NEXT, BACK = "next", "back"


def split_by_time(
    time: NDArray[np.int64], day: NDArray[np.int32], test_from: date | None, valid_days: int
) -> NDArray[np.int8]:
    """Index into SPLITS for each event, int8 [N].

    day: int32 [N], days since the epoch in the log's own calendar. Test: days from `test_from` on (None: the last two
    days of the log). Valid: the `valid_days` days of the log before. As a log's days may overlap in time, an event of
    an earlier day that is not earlier than the first of test is embargoed (it counts in later counters, but is neither
    trained on nor tested), and a training event that is not earlier than the first of validation goes to validation. So
    no training event is later than any of validation, and none of either later than any of test.
    """
    days = np.unique(day)
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
        raise UserError(f"--test-from {as_date(first_test)}: no event is left for training; choose a later day")
    return split


def split_by_users(user: NDArray[np.int32], test_share: float, valid_share: float, seed: int) -> NDArray[np.int8]:
    """Index into SPLITS for each event, int8 [N]: whole users are held out. user: int32 [N], codes 0..U-1."""
    count = int(user.max()) + 1
    shuffled = np.random.default_rng(seed).permutation(count)
    tested, validated = round(count * test_share), round(count * valid_share)
    if not (0 < tested and tested + validated < count and valid_share >= 0):
        raise UserError(
            f"--test-share {test_share} --valid-share {valid_share}: {tested} and {validated} of {count} users;"
            " should leave at least one user for test and one for training"
        )
    by_user = np.full(count, TRAIN, np.int8)
    by_user[shuffled[:tested]] = TEST
    by_user[shuffled[tested : tested + validated]] = VALID
    return by_user[user]


def as_date(days: int) -> date:
    return date.fromordinal(date(1970, 1, 1).toordinal() + int(days))


def _first_test_day(days: NDArray[np.int32], test_from: date | None) -> int:
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
