"""Intervals, p values and Holm's correction."""

import numpy as np
import pytest
from scipy import stats

from coldrank.analysis.compare.interval import contrast, effective_users, holm, student_tail, t_point
from coldrank.metrics.mann_whitney import FloatArray


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(
    ("main", "both", "user"),
    [(0.0, 1.0, 0.0), (0.0, 1.0, 1.0), (0.2, 1.0, 0.0), (1.0, 0.1, 0.1), (0.0, 0.0, 1.0)],
    ids=["both", "users and both", "seeds and both", "seeds", "users"],
)
def test_interval_covers_whatever_varies(paired: bool, main: float, both: float, user: float) -> None:
    rng = np.random.default_rng(0)
    seeds, users, trials, covered, half, differences = 5, 100, 300, 0, [], []
    for _ in range(trials):
        weights = np.concatenate([np.ones((1, users)), rng.multinomial(users, np.full(users, 1 / users), size=60)])

        def arm(weights: FloatArray = weights) -> FloatArray:
            per_user = rng.normal(0, user, users) + rng.normal(0, both, (seeds, users))
            return np.asarray(rng.normal(0, main, (seeds, 1)) + per_user @ weights.T / users)

        interval = contrast(arm(), arm(), users, paired=paired)
        assert interval is not None
        covered += interval.low <= 0 <= interval.high
        half.append(interval.high - interval.difference)
        differences.append(interval.difference)
    assert 0.91 <= covered / trials <= 0.99
    # Student's t at 4 degrees of freedom is 1.4 times the normal point: no interval should be much wider than that.
    assert np.median(half) < 1.6 * 1.96 * np.std(differences)


def test_seed_spread_is_the_standard_error_over_seeds() -> None:
    rng = np.random.default_rng(5)
    arm = 0.8 + np.repeat(rng.normal(0, 0.01, (5, 1)), 21, axis=1)
    baseline = 0.7 + np.repeat(rng.normal(0, 0.02, (4, 1)), 21, axis=1)
    expected = np.sqrt(arm[:, 0].var(ddof=1) / 5 + baseline[:, 0].var(ddof=1) / 4)
    interval = contrast(arm, baseline, users=100, paired=False)
    assert interval is not None and interval.seed_spread == pytest.approx(expected)
    assert interval.user_spread == pytest.approx(0, abs=1e-12)
    welch = stats.ttest_ind(arm[:, 0], baseline[:, 0], equal_var=False).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((welch.low, welch.high), abs=0.01 * (welch.high - welch.low))


@pytest.mark.parametrize("freedom", [1, 2, 2.5, 3.7, 7, 12, 50, 1e9])
def test_t_point_is_the_quantile(freedom: float) -> None:
    assert t_point(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.03)


@pytest.mark.parametrize("freedom", [1, 1.3, 2, 4.7, 30, 1000, 1e7])
def test_tail_is_student_s(freedom: float) -> None:
    for t in (0.0, 0.1, 1.0, 2.5, 6.0, 20.0):
        assert student_tail(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-2, abs=1e-15)


def test_p_value_and_interval_tell_the_same() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        arms = rng.normal(0, 1, (2, 4, 31)) + rng.normal(0, 1, (1, 1, 31)) + rng.normal(0, 0.7, (2, 1, 1))
        interval = contrast(arms[0], arms[1], users=50, paired=True)
        assert interval is not None and (interval.p < 0.05) == (interval.low > 0 or interval.high < 0)


def test_holm_rejects_step_by_step() -> None:
    rng = np.random.default_rng(0)
    p = [0.001, 0.04, 0.011, 0.011, 0.9, *rng.random(20)]
    corrected = np.array(holm(p))
    for level in (0.01, 0.02, 0.05, 0.3, 0.8):
        rejected: set[int] = set()
        for step, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if p[place] > level / (len(p) - step):
                break
            rejected.add(place)
        assert set(np.flatnonzero(corrected <= level)) == rejected
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


def test_effective_users_are_those_of_the_class_that_tells_less() -> None:
    users = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    assert effective_users(np.tile([0, 1], 4), users) == pytest.approx(4)
    assert effective_users(np.array([0, 1, 0, 0, 0, 0, 0, 0]), users) == pytest.approx(1)
    assert effective_users(np.array([1, 1, 1, 1, 1, 0, 0, 0]), users) == pytest.approx(9 / 5)
    assert effective_users(np.zeros(8, dtype=np.int8), users) == 0


def test_there_is_no_interval_without_users_draws_or_a_value() -> None:
    arm = np.random.default_rng(0).normal(size=(3, 9))
    assert contrast(arm, 0 * arm, users=1.5, paired=True) is not None
    assert contrast(arm, 0 * arm, users=1, paired=True) is None
    for lost, known in ((4, True), (5, False)):  # of eight draws
        part = arm.copy()
        part[1, 1 : 1 + lost] = np.nan
        assert (contrast(part, 0 * arm, users=9, paired=True) is not None) == known
    arm[0, 0] = np.nan
    assert contrast(arm, 0 * arm, users=9, paired=True) is None
    assert contrast(np.ones((2, 2)), np.ones((2, 2)), users=9, paired=True) is None, "one draw"


def test_interval_of_one_seed_is_that_of_the_users() -> None:
    draws = np.random.default_rng(1).normal(0.3, 0.1, (1, 41))
    interval = contrast(draws, np.zeros((1, 41)), users=11, paired=False)
    assert interval is not None and interval.seed_spread is None
    spread = draws[0, 1:].std(ddof=1)
    half = stats.t.ppf(0.975, 10) * spread
    assert interval.user_spread == pytest.approx(spread) and interval.difference == draws[0, 0]
    assert (interval.low, interval.high) == pytest.approx((draws[0, 0] - half, draws[0, 0] + half), rel=0.01)
    assert interval.p == pytest.approx(2 * stats.t.sf(draws[0, 0] / spread, 10), rel=0.01)


@pytest.mark.parametrize("paired", [True, False])
def test_variance_is_what_users_leave_and_the_seeds(paired: bool) -> None:
    """max(V_user - V_both, 0) + V_seed, in loops over draws and seeds."""
    rng = np.random.default_rng(2)
    for scale in (0.3, 3.0):
        arm = rng.normal(0, 1, (4, 1)) + rng.normal(0, 1, (1, 31)) + scale * rng.normal(0, 1, (4, 31))
        base = rng.normal(0, 1, (4 if paired else 3, 1)) + 0.5 * rng.normal(0, 1, (4 if paired else 3, 31))
        sides = [arm - base] if paired else [arm, -base]
        difference = sum(side.mean(0) for side in sides)
        user = np.var(difference[1:], ddof=1)
        seed = sum(np.var(side[:, 0], ddof=1) / len(side) for side in sides)
        both = 0.0
        for side in sides:
            deviations = [
                np.var([side[s, r] - side[:, r].mean() for r in range(1, 31)], ddof=1) for s in range(len(side))
            ]
            both += sum(deviations) / (len(side) - 1) / len(side)
        rest = max(user - both, 0.0)
        below = sum((np.var(side[:, 0], ddof=1) / len(side)) ** 2 / (len(side) - 1) for side in sides)
        below += user**2 / 19 if rest > 0 else 0.0
        freedom = max((rest + seed) ** 2 / below, 1.0)
        interval = contrast(arm, base, users=20, paired=paired)
        assert interval is not None and interval.user_spread == pytest.approx(user**0.5)
        assert interval.seed_spread == pytest.approx(seed**0.5)
        half = stats.t.ppf(0.975, freedom) * (rest + seed) ** 0.5
        assert interval.high - interval.low == pytest.approx(2 * half, rel=0.02)


@pytest.mark.slow
def test_equal_arms_get_any_mark_in_one_of_twenty_comparisons() -> None:
    rng = np.random.default_rng(0)
    seeds, draws, cells, trials = 5, 41, 12, 300
    before, after = 0, 0
    for _ in range(trials):
        # Figures of nested cohorts and kindred metrics: half of what varies they have in common.
        runs, by_user = rng.normal(0, 1, (2, seeds, 1, 1)), rng.normal(0, 1, (2, 1, draws, 1))
        both = rng.normal(0, 1, (2, seeds, draws, 1))
        arms = (
            runs + by_user + both + rng.normal(0, 1, (2, seeds, 1, cells)) + rng.normal(0, 1, (2, seeds, draws, cells))
        )
        intervals = [contrast(arms[0, :, :, i], arms[1, :, :, i], users=1000, paired=True) for i in range(cells)]
        p = [interval.p for interval in intervals if interval is not None]
        before, after = before + (min(p) < 0.05), after + (min(holm(p)) < 0.05)
    assert len(p) == cells
    assert after <= 0.075 * trials < 0.15 * trials < before, (after, before)
