"""The difference of two arms' means over seeds: its interval, its p value, and Holm's correction for many of them.

Two things vary: the users that happened to be in the test, and the seeds that the arms were trained with.

- V_user: users are resampled with replacement, each with all of its rows, and every arm and seed is scored on the same
  draw (a paired bootstrap). V_user is the variance, across the draws, of the mean over seeds.
- V_seed: the variance across seeds, over S. Seeds count as pairs where both arms have the same ones, else each arm has
  its own V_seed.
- V_both: each seed errs on other users. This part of the spread across seeds is in V_user already. It comes from the
  draws' variance around the mean over seeds.

So, as for any two-way sample (Cameron, Gelbach and Miller 2011, Eq. 2.8),

    variance of the difference = max(V_user - V_both, 0) + V_seed

Resampling seeds inside the draws of users instead would count V_both three times (Owen 2007, The pigeonhole bootstrap).
The 95% interval takes Student's t at the degrees of freedom of Welch-Satterthwaite: with few seeds their spread is
itself poorly known, and a normal interval would find differences between equal arms. An arm with one seed has no
V_seed: its interval speaks of users only.

Legend: R resamples, S seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coldrank.metrics.mann_whitney import FloatArray, IntArray

NORMAL_FROM = 1e5  # degrees of freedom beyond which Student's t is taken at this number


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A difference of two means over seeds, with its interval."""

    difference: float
    """The difference."""
    low: float
    """Lower end of the 95% interval."""
    high: float
    """Upper end of the 95% interval."""
    user_spread: float
    """Standard error of the difference that comes from users."""
    seed_spread: float | None
    """Standard error of the difference that comes from seeds; None with one seed."""
    p: float
    """Two-sided, of the same t as the interval."""


def contrast(arm: FloatArray, baseline: FloatArray, users: float, *, paired: bool) -> Interval | None:
    """The interval of arm - baseline; None where there is no value or one user, or where most draws lack a class.

    arm, baseline: a metric per seed, float64 [S, 1 + R] and [S', 1 + R]; column 0 is the test itself.
    users: how many users the metric rests on (`effective_users`), for the degrees of freedom.
    paired: whether the rows of both are the same seeds.
    """
    parts = [arm - baseline] if paired else [arm, -baseline]
    difference = np.sum([part.mean(axis=0) for part in parts], axis=0)
    valid = np.flatnonzero(np.isfinite(difference[1:])) + 1
    if not np.isfinite(difference[0]) or users <= 1 or len(valid) < max(2, (len(difference) - 1) / 2):
        return None
    user_variance = float(difference[valid].var(ddof=1))
    seeded = [part for part in parts if len(part) > 1]
    seed_variances = [float(part[:, 0].var(ddof=1)) / len(part) for part in seeded]
    rest = max(user_variance - sum(_both_variance(part[:, valid]) for part in seeded), 0.0)
    variance = rest + sum(seed_variances)
    terms = [(v, len(part) - 1.0) for v, part in zip(seed_variances, seeded, strict=True)]
    # What is left of V_user is as uncertain as the whole.
    terms += [(user_variance, max(min(users, len(valid)) - 1, 1.0))] if rest > 0 else []
    freedom = _freedom(variance, terms)
    point, half = float(difference[0]), t_point(freedom) * variance**0.5
    return Interval(
        difference=point,
        low=point - half,
        high=point + half,
        user_spread=user_variance**0.5,
        seed_spread=sum(seed_variances) ** 0.5 if seeded else None,
        p=two_sided_p(point, variance**0.5, freedom),
    )


def effective_users(labels: IntArray, users: IntArray) -> float:
    """How many users, equally active, would tell as much (Kish 1965), in the class that tells less.

    0 where a class is missing. labels: integers [N], 0 or 1. users: each row's user, integers [N] from 0.
    """

    return min(equal_users(users[labels == 0]), equal_users(users[labels == 1]))


def equal_users(users: IntArray) -> float:
    """How many users, equally active, would tell as much (Kish 1965): of a task of numbers, which has no classes.

    users: each row's user, integers [N] from 0."""
    counts = np.bincount(users).astype(np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum()) if counts.any() else 0.0


def two_sided_p(difference: float, standard_error: float, freedom: float) -> float:
    """P(|T| >= |difference / standard_error|) for Student's t at `freedom` >= 1; 1 for a difference of 0."""
    if difference == 0:
        return 1.0
    return student_tail(abs(difference) / standard_error, freedom) if standard_error > 0 else 0.0


def student_tail(t: float, freedom: float) -> float:
    """P(|T| >= t) for t >= 0: with t = sqrt(freedom) tan(a), the density of a is as cos(a)^(freedom - 1)."""
    freedom = min(freedom, NORMAL_FROM)
    angle = float(np.arctan(t / freedom**0.5))
    return _cosine_power(angle, freedom - 1) / _cosine_power(0.0, freedom - 1)


def t_point(freedom: float) -> float:
    """97.5% point of Student's t at `freedom` >= 1, by bisection."""
    low, high = 1.9, 13.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, freedom) > 0.05 else (low, middle)
    return low


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def _cosine_power(start: float, power: float) -> float:
    """The integral of cos(a)^power from `start` to pi/2, by Gauss-Legendre, up to where it is 1e-17 of the start."""
    width = min(np.pi / 2 - start, 9.0 / max(power, 1.0) ** 0.5)
    angles = start + width * (_NODES + 1) / 2
    return float(width / 2 * (np.cos(angles) ** power @ _WEIGHTS))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p values: rejecting those at most 5% errs anywhere with at most 5%, however the tests depend."""
    from statsmodels.stats.multitest import multipletests  # loads pandas

    # Before statsmodels 0.15 no p values at all are a division by zero.
    return multipletests(p, method="holm")[1].tolist() if p else []


def _both_variance(values: FloatArray) -> float:
    """V_both: variance over draws of each seed's deviation from the mean over seeds, over S. values: float64 [S, R]."""
    count = len(values)
    deviations = values - values.mean(axis=0)
    return float(deviations.var(axis=1, ddof=1).sum()) / (count - 1) / count


def _freedom(variance: float, terms: Sequence[tuple[float, float]]) -> float:
    """Welch-Satterthwaite, at least 1: variance^2 / sum of estimate^2 / freedom over terms (estimate, freedom)."""
    below = sum(estimate**2 / freedom for estimate, freedom in terms)
    return max(variance**2 / below, 1.0) if below > 0 else float("inf")
