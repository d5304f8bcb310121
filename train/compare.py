"""Arms against a baseline, per task, cohort and metric, with paired intervals.

Two things vary: the users that happened to be in the test, and the seeds that the arms were trained with. Users are
resampled with replacement, each with all of its rows, and every arm and seed is scored on the same draw (a paired bootstrap):
the variance of the mean over seeds across the draws is V_user. The variance across seeds, over S, is V_seed; seeds count as
pairs where both arms have the same ones, else each arm has its own V_seed. Part of the spread across seeds is that each seed
errs on other users, which V_user holds already: V_both, from the draws' variance around the mean over seeds. So, as for any
two-way sample (Cameron, Gelbach and Miller 2011, Eq. 2.8),

    variance of the difference = V_user + max(V_seed - V_both, 0)

Resampling seeds inside the draws of users instead would count V_both three times (Owen 2007, The pigeonhole bootstrap).
The 95% interval takes Student's t at the degrees of freedom of Welch-Satterthwaite: with few seeds their spread is itself
poorly known, and a normal interval would find differences between equal arms. An arm with one seed contributes no V_seed, so
its interval speaks of users only.

Legend: N rows, U users, R resamples, S seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from coldrank.train.compare_runs import Run, SharedRows, common_tasks, group_by_arm, read_shared_rows
from coldrank.train.mann_whitney import BoolArray, FloatArray, IntArray, Numbers, RankedPairs, SortedRows
from coldrank.train.metrics import (
    CohortConfig,
    avc_groups,
    cohort_masks,
    mean_or_nan,
    normalised,
    row_logloss,
)

METRICS = ("auc", "auc_fixed_avc", "ne", "gauc")
LOWER_IS_BETTER = frozenset({"ne"})
PERCENT = 100.0
# Student's t, 97.5% point, at these degrees of freedom; nearly linear in 1 / freedom in between.
T_FREEDOM = (1, 2, 3, 4, 5, 6, 8, 10, 15, 30, float("inf"))
T_POINT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.306, 2.228, 2.131, 2.042, 1.960)

Resampled = dict[str, FloatArray]  # cohort -> [metric, 1 + R]; column 0 is the sample itself


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One arm in one task, cohort and metric; figures in percent, differences and spreads in percentage points.

    `mean` is over the seeds. `difference`, `low` and `high` are to the baseline (None for the baseline itself and where the
    metric has no value); `user_spread` and `seed_spread` are the standard errors of the difference that come from users and
    from seeds. n counts labelled rows, `users` the users that they belong to.
    """

    task: str
    cohort: str
    metric: str
    arm: str
    seeds: int
    n: int
    users: int
    mean: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    user_spread: float | None = None
    seed_spread: float | None = None
    verdict: str = "baseline"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The rows under test: user codes and AVC groups [N], cohort masks [N], and user multiplicities uint8 [1 + R, U]."""

    users: IntArray
    avc: IntArray
    cohorts: dict[str, BoolArray]
    draws: npt.NDArray[np.uint8]


def make_sample(rows: SharedRows, cohorts: CohortConfig, resamples: int, seed: int) -> Sample:
    """Draw the users: row 0 of the multiplicities counts every user once, the others draw U users with replacement."""
    names, users = np.unique(rows.users, return_inverse=True)
    rng = np.random.default_rng([seed, 0])
    draws = np.ones((1 + resamples, len(names)), dtype=np.uint8)
    for draw in draws[1:]:
        draw[:] = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
    masks = cohort_masks(rows.user_views, rows.item_views, cohorts)
    return Sample(users=users, avc=avc_groups(rows.user_views), cohorts=masks, draws=draws)


def compare(
    runs: Sequence[Run], baseline: str, *, resamples: int = 300, seed: int = 0, cohorts: CohortConfig | None = None
) -> list[Row]:
    """Compare the arms of the runs with the arm `baseline` on the tasks that all runs predict.

    Runs of different rows raise UserError. Memory: the scores of one run and task at a time, and R bytes per user.
    """
    rows = read_shared_rows(runs)
    sample = make_sample(rows, cohorts or CohortConfig(), resamples, seed)
    arms = group_by_arm(runs)
    result: list[Row] = []
    tasks = common_tasks(runs)
    with tqdm(total=len(tasks) * len(runs), desc="compare", unit="run") as progress:
        for task in tasks:
            resampled: dict[str, dict[int, Resampled]] = {arm: {} for arm in arms}
            for run in (run for members in arms.values() for run in members):
                resampled[run.arm][run.seed] = resample(rows.labels[task], run.scores(task), sample)
                progress.update()
            result += contrast_task(task, rows.labels[task], resampled, baseline, sample)
    return result


def resample(labels: IntArray, scores: Numbers, sample: Sample) -> Resampled:
    """The metrics of one run and task on the sample and on each draw of users; labels int8 [N], -1 where unknown."""
    by_score = SortedRows.of(labels, scores, labels >= 0)
    by_user, by_avc = by_score.grouped(sample.users), by_score.grouped(sample.avc)
    cells = {
        cohort: _Cell.of(by_score.where(mask), by_avc.where(mask), by_user.where(mask), sample)
        for cohort, mask in sample.cohorts.items()
    }
    result = {cohort: np.empty((len(METRICS), len(sample.draws))) for cohort in cells}
    for draw, multiplicities in enumerate(sample.draws):
        weights = multiplicities.astype(np.float64)
        for cohort, cell in cells.items():
            result[cohort][:, draw] = cell.metrics(weights)
    return result


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cell:
    """One cohort of one run and task, reduced to what a weighting of the users needs: sorted once, summed per user.

    `sums` [5, U]: log loss, positives, rows, and rows times AUC and rows of the users that have an AUC.
    """

    pairs: RankedPairs
    avc_pairs: RankedPairs
    sums: FloatArray

    @classmethod
    def of(cls, by_score: SortedRows, by_avc: SortedRows, by_user: SortedRows, sample: Sample) -> "_Cell":
        users = sample.users[by_score.rows]
        count = sample.draws.shape[1]
        sums = np.zeros((5, count))
        sums[0] = np.bincount(users, weights=row_logloss(by_score.labels, by_score.scores), minlength=count)
        sums[1] = np.bincount(users, weights=by_score.labels, minlength=count)
        sums[2] = np.bincount(users, minlength=count)
        user_pairs = by_user.pairs()
        sums[4, user_pairs.groups] = sums[2, user_pairs.groups]
        sums[3, user_pairs.groups] = sums[4, user_pairs.groups] * user_pairs.auc()
        return cls(
            pairs=by_score.pairs().of_units(sample.users), avc_pairs=by_avc.pairs().of_units(sample.users), sums=sums
        )

    def metrics(self, weights: FloatArray) -> tuple[float, float, float, float]:
        """`METRICS` with each user counted `weights` [U] times."""
        loss, positives, rows, user_auc, user_rows = self.sums @ weights
        if rows == 0:
            return float("nan"), float("nan"), float("nan"), float("nan")
        return (
            mean_or_nan(self.pairs.auc(weights)),
            mean_or_nan(self.avc_pairs.auc(weights)),
            float(normalised(loss / rows, positives / rows)),
            user_auc / user_rows if user_rows > 0 else float("nan"),
        )


def contrast_task(
    task: str,
    labels: IntArray,
    resampled: Mapping[str, Mapping[int, Resampled]],
    baseline: str,
    sample: Sample,
) -> list[Row]:
    """Rows of one task from arm -> seed -> resampled metrics, baseline first within each cohort and metric."""
    rows: list[Row] = []
    order = [baseline, *(arm for arm in resampled if arm != baseline)]
    for cohort, mask in sample.cohorts.items():
        labelled = mask & (labels >= 0)
        n, users = int(np.count_nonzero(labelled)), len(np.unique(sample.users[labelled]))
        for index, metric in enumerate(METRICS):
            values = {arm: np.stack([by[cohort][index] for by in resampled[arm].values()]) for arm in order}
            for arm in order:
                mean = _percent(float(values[arm][:, 0].mean()))
                row = Row(
                    task=task,
                    cohort=cohort,
                    metric=metric,
                    arm=arm,
                    seeds=len(values[arm]),
                    n=n,
                    users=users,
                    mean=mean,
                )
                if arm != baseline:
                    paired = resampled[arm].keys() == resampled[baseline].keys()
                    row = _against(row, contrast(values[arm], values[baseline], users, paired=paired))
                rows.append(row)
    return rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A difference of two means over seeds, its 95% interval, and the standard errors from users and from seeds."""

    difference: float
    low: float
    high: float
    user_spread: float
    seed_spread: float | None


def contrast(arm: FloatArray, baseline: FloatArray, users: int, *, paired: bool) -> Interval | None:
    """The interval of arm - baseline, from metrics [S, 1 + R] and [S', 1 + R]; `paired`: their rows are the same seeds.

    None where the difference has no value, where there is but one user, or where most draws lack a class.
    """
    parts = [arm - baseline] if paired else [arm, -baseline]
    difference = np.sum([part.mean(axis=0) for part in parts], axis=0)
    valid = np.flatnonzero(np.isfinite(difference[1:])) + 1
    if not np.isfinite(difference[0]) or users < 2 or len(valid) < max(2, (len(difference) - 1) / 2):
        return None
    user_variance = float(difference[valid].var(ddof=1))
    seeded = [part for part in parts if len(part) > 1]
    seed_variances = [float(part[:, 0].var(ddof=1)) / len(part) for part in seeded]
    excess = [max(v - _both_variance(part[:, valid]), 0.0) for v, part in zip(seed_variances, seeded, strict=True)]
    # An excess is as uncertain as the whole V_seed that it is a part of.
    terms = [(user_variance, min(users, len(valid)) - 1)]
    terms += [(v, len(part) - 1) for v, e, part in zip(seed_variances, excess, seeded, strict=True) if e > 0]
    variance = user_variance + sum(excess)
    half = t_point(_freedom(variance, terms)) * variance**0.5
    point = float(difference[0])
    return Interval(
        difference=point,
        low=point - half,
        high=point + half,
        user_spread=user_variance**0.5,
        seed_spread=sum(seed_variances) ** 0.5 if seeded else None,
    )


def t_point(freedom: float) -> float:
    """97.5% point of Student's t at `freedom` >= 1, from the table, linear in 1 / freedom."""
    inverse = [1 / table for table in reversed(T_FREEDOM)]
    return float(np.interp(1 / freedom, inverse, T_POINT[::-1]))


def _both_variance(values: FloatArray) -> float:
    """V_both of [S, R]: variance over draws of each seed's deviation from the mean over seeds, over S."""
    count = len(values)
    deviations = values - values.mean(axis=0)
    return float(deviations.var(axis=1, ddof=1).sum()) / (count - 1) / count


def _freedom(variance: float, terms: Sequence[tuple[float, int]]) -> float:
    """Welch-Satterthwaite, from 1: variance^2 / sum over (estimate, its degrees of freedom) of estimate^2 / freedom."""
    below = sum(estimate**2 / freedom for estimate, freedom in terms)
    return max(variance**2 / below, 1.0) if below > 0 else float("inf")


def _against(row: Row, interval: Interval | None) -> Row:
    if interval is None:
        return replace(row, verdict="no value")
    spread = None if interval.seed_spread is None else _percent(interval.seed_spread)
    return replace(
        row,
        difference=_percent(interval.difference),
        low=_percent(interval.low),
        high=_percent(interval.high),
        user_spread=_percent(interval.user_spread),
        seed_spread=spread,
        verdict=_verdict(interval, row.metric in LOWER_IS_BETTER),
    )


def _verdict(interval: Interval, lower_is_better: bool) -> str:
    if interval.low <= 0 <= interval.high:
        return "not distinguishable"
    return "better" if (interval.difference > 0) != lower_is_better else "worse"


def _percent(value: float) -> float | None:
    return value * PERCENT if np.isfinite(value) else None
