"""The splits keep time, or users, apart."""

from datetime import date

import numpy as np
import pytest

from coldrank.data import split as rules
from coldrank.data.errors import UserError
from coldrank.data.split import EMBARGO, TEST, TRAIN, VALID, EventTimes
from coldrank.data.times import DayTimes


def split_by_time(time: np.ndarray, day: np.ndarray, test_from: date | None, valid_days: int) -> np.ndarray:
    return rules.split_by_time(DayTimes.of(day, time), test_from, valid_days).at(time, day)


def split_by_share(time: np.ndarray, *shares: float) -> np.ndarray:
    """The times in as many parts as there are runs of three different times."""
    cuts = np.flatnonzero(np.diff(time)) + 1
    parts = np.split(time, cuts[2::3])
    return rules.split_by_share(EventTimes(parts), *shares).at(time, np.zeros(len(time), np.int32))


def split_by_users(user: np.ndarray, test: float, valid: float, seed: int) -> np.ndarray:
    users = np.unique(user)
    split = rules.split_by_users(users, test, valid, seed)
    return split.split[np.searchsorted(users, user)]


def serves_by_days(day: np.ndarray, valid_days: int) -> bool:
    return rules.serves_by_days(DayTimes.of(day, day.astype(np.int64)), valid_days)


def overlapping(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Times of ten days, and log days that reach up to two hours into the next day."""
    rng = np.random.default_rng(seed)
    day = np.sort(rng.integers(19_000, 19_010, 500)).astype(np.int32)
    time = day.astype(np.int64) * 86_400_000 + rng.integers(0, 93_600_000, 500)
    order = np.argsort(time, kind="stable")
    return time[order], day[order]


@pytest.mark.parametrize("seed", range(5))
def test_time_orders_the_splits(seed: int) -> None:
    time, day = overlapping(seed)
    split = split_by_time(time, day, date.fromordinal(date(1970, 1, 1).toordinal() + 19_008), 2)
    assert set(split.tolist()) == {TRAIN, VALID, TEST, EMBARGO}
    np.testing.assert_array_equal(split == TEST, day >= 19_008)
    assert time[split == TRAIN].max() < time[split == VALID].min()
    assert time[split == VALID].max() < time[split == TEST].min()
    late = (day < 19_008) & (time >= time[split == TEST].min())
    np.testing.assert_array_equal(split == EMBARGO, late)
    moved = (split == VALID) & (day < 19_006)
    assert moved.any() and (time[moved] >= time[(day >= 19_006) & (split == VALID)].min()).all()


def test_by_default_the_last_two_days_are_test() -> None:
    time, day = overlapping(0)
    split = split_by_time(time, day, None, 0)
    np.testing.assert_array_equal(np.unique(day[split == TEST]), [19_008, 19_009])
    assert not (split == VALID).any()


@pytest.mark.parametrize(
    ("test_from", "valid_days", "message"),
    [
        (date(2022, 1, 8), 2, "--test-from 2022-01-08: should be a day after 2022-01-08 and not after 2022-01-17"),
        (date(2022, 1, 18), 2, "--test-from 2022-01-18: should be a day after"),
        (date(2022, 1, 9), 1, "--valid-days 1: the log has 1 days before 2022-01-09"),
    ],
)
def test_errors_name_the_days_of_the_log(test_from: date, valid_days: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_by_time(*overlapping(0), test_from, valid_days)


@pytest.mark.tried("logs", "a log of two days, split by days", "refused: it needs 3")
def test_two_days_are_too_few_for_a_split_by_days() -> None:
    day = np.repeat(np.array([19_000, 19_001, 19_002], np.int32), 4)
    time = day.astype(np.int64) * DAY
    assert split_by_time(time, day, None, 0).tolist() == [TRAIN] * 4 + [TEST] * 8
    with pytest.raises(UserError, match="the log has 2 days; a split by time needs 3"):
        split_by_time(time[:8], day[:8], None, 0)


@pytest.mark.parametrize(
    ("test", "valid", "counts"),
    [(0.2, 0.0, [8, 0, 2]), (0.2, 0.7, [1, 7, 2]), (0.9, 0.0, [1, 0, 9]), (0.06, 0.04, [9, 0, 1])],
)
def test_shares_of_users_are_rounded(test: float, valid: float, counts: list[int]) -> None:
    split = split_by_users(np.arange(10, dtype=np.int32), test, valid, seed=0)
    assert [int((split == s).sum()) for s in (TRAIN, VALID, TEST)] == counts


@pytest.mark.parametrize(("test", "valid"), [(0.04, 0.0), (0.5, 0.5), (0.2, 0.8)])
def test_shares_of_users_that_leave_none_are_refused(test: float, valid: float) -> None:
    with pytest.raises(UserError, match=f"--test-share {test} --valid-share {valid}: .* of 10 users"):
        split_by_users(np.arange(10, dtype=np.int32), test, valid, seed=0)


@pytest.mark.parametrize(
    ("test", "valid"), [(float("nan"), 0.1), (0.2, float("nan")), (float("inf"), 0.0), (0.2, -0.1)]
)
@pytest.mark.tried("data folders", "prepare --split users --test-share nan (or inf, or below 0)", "refused")
def test_shares_of_users_that_are_none_are_refused(test: float, valid: float) -> None:
    with pytest.raises(UserError, match=f"--test-share {test} --valid-share {valid}: should be shares, 0 to 1"):
        split_by_users(np.arange(10, dtype=np.int32), test, valid, seed=0)


def test_users_are_held_out_whole() -> None:
    user = np.random.default_rng(0).integers(0, 1000, 20_000).astype(np.int32)
    split = split_by_users(user, 0.278, 0.072, seed=1)
    of_user = {u: set(split[user == u].tolist()) for u in range(1000)}
    assert all(len(splits) == 1 for splits in of_user.values())
    counts = [sum(s == {k} for s in of_user.values()) for k in (TRAIN, VALID, TEST)]
    assert counts == [650, 72, 278]
    assert (split_by_users(user, 0.278, 0.072, seed=2) != split).any()
    with pytest.raises(UserError, match="--test-share 1.0"):
        split_by_users(user, 1.0, 0.0, seed=1)


DAY = 86_400_000


@pytest.mark.parametrize(
    ("time", "starts"),
    [
        # Ten events, ten times: the last for test, the one before for validation.
        (list(range(10)), (8, 9)),
        # The tenth's time begins two rows earlier; with them it is as near as without.
        ([0, 1, 2, 3, 4, 5, 6, 8, 8, 8], (6, 7)),
        # All but one event at one time, which cannot be parted.
        ([0, 5, 5, 5, 5, 5, 5, 5, 5, 6], (1, 9)),
        ([0, 5, 5, 5, 5, 5, 5, 5, 6, 6], (1, 8)),
        ([0, 1, 2], (1, 2)),
    ],
)
def test_shares_begin_at_the_nearest_time(time: list[int], starts: tuple[int, int]) -> None:
    valid, test = starts
    wanted = [TRAIN] * valid + [VALID] * (test - valid) + [TEST] * (10 - test)
    assert split_by_share(np.array(time, np.int64)).tolist() == wanted[: len(time)]


def test_shares_are_those_asked_for() -> None:
    time = np.arange(1000, dtype=np.int64)
    split = split_by_share(time, 0.3, 0.05)
    assert [int((split == s).sum()) for s in (TRAIN, VALID, TEST)] == [650, 50, 300]
    assert [int((split_by_share(time, 0.2, 0.0) == s).sum()) for s in (TRAIN, VALID, TEST)] == [800, 0, 200]


@pytest.mark.parametrize(
    ("time", "shares", "message"),
    [
        pytest.param(
            [7, 7, 7, 9],
            (0.1, 0.1),
            "the events have 2 different times; a split by time needs 3",
            marks=pytest.mark.tried("logs", "events of two times, split by time", "refused; --split users is named"),
        ),
        ([7, 8, 9], (0.6, 0.4), "--test-share 0.6 --valid-share 0.4: should be shares that leave some"),
        ([7, 8, 9], (0.0, 0.1), "--test-share 0.0"),
        ([7, 8, 9], (float("nan"), 0.1), "--test-share nan"),
    ],
)
def test_shares_that_cannot_be_are_refused(time: list[int], shares: tuple[float, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_by_share(np.array(time, np.int64), *shares)


@pytest.mark.parametrize(
    ("rows", "serve"),
    [
        ([10] * 5, True),
        # A day is missing for training.
        ([10] * 4, False),
        # Under 1% in the last two days, and in the two before.
        ([990, 90, 5, 5, 3, 3], False),
        ([990, 90, 3, 3, 5, 6], False),
        ([980, 90, 5, 6, 5, 6], True),
        # Under 1%, but many.
        ([3_000_000, 5000, 5000, 5000, 5000], True),
        ([3_000_000, 5000, 5000, 5000, 4999], False),
    ],
)
def test_days_serve_unless_they_are_few_or_thin(rows: list[int], serve: bool) -> None:
    assert serves_by_days(np.repeat(np.arange(len(rows), dtype=np.int32), rows), 2) is serve


def test_outliers_move_neither_the_days_nor_their_errors() -> None:
    day = np.array([0] + [19_000 + n // 50 for n in range(500)] + [40_000], np.int32)
    split = split_by_time(day.astype(np.int64) * DAY, day, None, 2)
    assert [int((split == s).sum()) for s in (TRAIN, VALID, TEST)] == [301, 100, 101]
    with pytest.raises(UserError, match="should be a day after 2022-01-08 and not after 2022-01-17"):
        split_by_time(day.astype(np.int64) * DAY, day, date(2050, 1, 1), 2)


@pytest.mark.tried("logs", "a day of test with the time 0 in one row", "refused, with the date of that row")
def test_a_first_test_event_of_1970_is_named() -> None:
    day = np.array([19_009] + [19_000 + n // 50 for n in range(500)], np.int32)
    time = day.astype(np.int64) * DAY
    time[0] = 0
    with pytest.raises(UserError, match="no event is left for training, as test begins with an event of 1970-01-01"):
        split_by_time(time, day, date(2022, 1, 16), 2)
