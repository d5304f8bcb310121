"""The metrics of one run and task: on the rows themselves, on draws of users, and per day.

Legend: N rows, U users, R resamples, M metrics, D days, G groups.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coldrank.analysis.compare.days import Days
from coldrank.analysis.compare.rows import METRICS
from coldrank.analysis.compare.runs import SharedRows
from coldrank.data.cohorts import CohortConfig, cohort_masks
from coldrank.metrics.by_cohort import avc_groups, normalised, row_logloss
from coldrank.metrics.mann_whitney import BoolArray, FloatArray, IntArray, Numbers, RankedPairs, SortedRows


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """The N rows under test, and R draws of their U users."""

    users: IntArray
    """Each row's user, int64 [N], 0 to U - 1."""
    avc: IntArray
    """Each row's AVC group, int8 [N]."""
    cohorts: dict[str, BoolArray]
    """Cohort -> which rows are in it, bool [N]."""
    draws: npt.NDArray[np.uint8]
    """How often each user counts, uint8 [1 + R, U]; row 0 is the test itself."""


def resample_users(rows: SharedRows, cohorts: CohortConfig, resamples: int, seed: int) -> Resampling:
    """Draws the users: row 0 of the draws counts every user once, each other draws U users with replacement."""
    names, users = np.unique(rows.users, return_inverse=True)
    rng = np.random.default_rng([seed, 0])
    draws = np.ones((1 + resamples, len(names)), dtype=np.uint8)
    for draw in draws[1:]:
        draw[:] = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
    masks = cohort_masks(rows.user_views, rows.item_views, cohorts)
    return Resampling(users=users, avc=avc_groups(rows.user_views), cohorts=masks, draws=draws)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The metrics of one run and task."""

    draws: dict[str, FloatArray]
    """Cohort -> metrics on the draws, float64 [M, 1 + R]; column 0 is the test itself."""
    days: dict[str, FloatArray]
    """Cohort -> metrics per day, float64 [M, D]."""


def measure(labels: IntArray, scores: Numbers, resampling: Resampling, days: Days | None = None) -> Figures:
    """The figures of one run and task.

    labels: int8 [N], -1 where unknown. scores: floats [N]. days: None: no figures per day.
    """
    by_score = SortedRows.from_scores(labels, scores, labels >= 0)
    by_user, by_avc = by_score.grouped(resampling.users), by_score.grouped(resampling.avc)
    inside = {cohort: by_score.where(mask) for cohort, mask in resampling.cohorts.items()}
    sums = [_user_sums(inside[cohort], by_user.where(mask), resampling) for cohort, mask in resampling.cohorts.items()]
    # One product for all cohorts: turning the draws into floats takes longer than multiplying them.
    totals = (np.concatenate(sums) @ resampling.draws.T).reshape(len(sums), -1, len(resampling.draws))
    drawn, daily = {}, {}
    for (cohort, mask), total in zip(resampling.cohorts.items(), totals, strict=True):
        drawn[cohort] = _draw(inside[cohort].pairs(), by_avc.where(mask).pairs(), total, resampling)
        daily[cohort] = days.measure(inside[cohort]) if days else np.empty((len(METRICS), 0))
    return Figures(draws=drawn, days=daily)


def _draw(pairs: RankedPairs, avc_pairs: RankedPairs, totals: FloatArray, resampling: Resampling) -> FloatArray:
    """The metrics of one cohort, float64 [M, 1 + R].

    pairs, avc_pairs: its pairs in all and by AVC group. totals: `_user_sums` over the users of each draw, [5, 1 + R].
    """
    loss, positives, rows, user_auc, user_rows = totals
    result = np.full((len(METRICS), len(resampling.draws)), np.nan)
    for metric, units in enumerate((pairs.of_units(resampling.users), avc_pairs.of_units(resampling.users))):
        if len(units.groups):
            aucs = np.array([units.auc(draw) for draw in resampling.draws])
            known = ~np.isnan(aucs)
            count = known.sum(axis=1)
            np.divide(np.where(known, aucs, 0.0).sum(axis=1), count, out=result[metric], where=count > 0)
    some = rows > 0
    result[2, some] = normalised(loss[some] / rows[some], positives[some] / rows[some])
    np.divide(user_auc, user_rows, out=result[3], where=user_rows > 0)
    return result


def _user_sums(by_score: SortedRows, by_user: SortedRows, resampling: Resampling) -> FloatArray:
    """Sums per user, float64 [5, U]: log loss, positives, rows; of users with an AUC, rows times AUC, and rows."""
    users, count = resampling.users[by_score.rows], resampling.draws.shape[1]
    sums = np.zeros((5, count))
    sums[0] = np.bincount(users, weights=row_logloss(by_score.labels, by_score.scores), minlength=count)
    sums[1] = np.bincount(users, weights=by_score.labels, minlength=count)
    sums[2] = np.bincount(users, minlength=count)
    pairs = by_user.pairs()
    sums[4, pairs.groups] = sums[2, pairs.groups]
    sums[3, pairs.groups] = sums[4, pairs.groups] * pairs.auc()
    return sums
