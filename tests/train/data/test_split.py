"""The splits keep time, or users, apart."""

from datetime import date

import numpy as np
import pytest

from coldrank.train.data.split import EMBARGO, TEST, TRAIN, VALID, split_by_time, split_by_users
from coldrank.train.errors import UserError


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
