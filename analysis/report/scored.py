"""What the predictions say beyond the comparison's cells: calibration by bins, AUC by views of user and item.

Legend: N rows, S seeds, K bins, G buckets of views, R resamples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from coldrank.analysis.compare.interval import Interval, contrast, effective_users
from coldrank.analysis.compare.resample import Resampling, resample_users
from coldrank.analysis.compare.rows import Comparison
from coldrank.analysis.compare.runs import read_shared_rows
from coldrank.analysis.report.arms import ReportedArm
from coldrank.metrics.mann_whitney import BoolArray, FloatArray, IntArray, SortedRows

BINS = 10
PER_BIN = 10  # fewer of a class say nothing about a rate or an AUC
MAX_RESAMPLES = 100  # a picture needs no more


@dataclass(frozen=True, slots=True)
class Calibration:
    """Predictions against labels in K bins; K is 0 where a class has fewer than 20 rows."""

    predicted: FloatArray
    """Mean prediction of each bin, mean over the seeds, float64 [K]."""
    observed: FloatArray
    """Label rate of each bin, mean over the seeds, float64 [K]."""
    rows: int
    """Labelled rows of the cohort."""
    positives: int
    """Positive rows of the cohort."""


@dataclass(frozen=True, slots=True)
class ByViews:
    """AUC in G buckets of views."""

    buckets: list[int]
    """Numbers of `octaves`, [G]."""
    rows: list[int]
    """Labelled rows of each bucket, [G]."""
    levels: list[list[Interval | None]]
    """Per arm and bucket the interval of its AUC, mean over the seeds; None: there is none."""
    differences: list[list[Interval | None]]
    """Per arm and bucket the interval of its difference to the baseline; None: there is none, or it is the baseline."""


@dataclass(frozen=True, slots=True)
class TaskScores:
    """What the predictions of one task say."""

    task: str
    """The task."""
    calibration: dict[str, list[Calibration]]
    """Cohort -> calibration of each arm."""
    by_user_views: ByViews
    """AUC by views of the user."""
    by_item_views: ByViews
    """AUC by views of the item."""


def octaves(views: IntArray) -> IntArray:
    """The bucket of each count of views, int64 [N]: 0, 1, 2-3, 4-7 and so on; bucket g > 0 begins at 2^(g-1)."""
    return np.where(views > 0, np.floor(np.log2(np.maximum(views, 1))) + 1, 0).astype(np.int64)


def score_tasks(arms: Sequence[ReportedArm], tasks: Sequence[str], comparison: Comparison) -> Iterator[TaskScores]:
    """Each task in turn, with the comparison's cohorts and its draws of users, at most 100 of them."""
    rows = read_shared_rows(arms[0].runs[:1])
    resamples = min(comparison.resamples, MAX_RESAMPLES)
    resampling = resample_users(rows, comparison.cohorts, resamples, comparison.seed)
    sides = (octaves(rows.user_views), octaves(rows.item_views))
    with tqdm(total=len(tasks) * sum(len(arm.runs) for arm in arms), desc="report", unit="run") as progress:
        for task in tasks:
            labels = rows.labels[task]
            kept = [_enough(labels, side) for side in sides]
            calibration: dict[str, list[Calibration]] = {cohort: [] for cohort in resampling.cohorts}
            values: list[list[FloatArray]] = [[], []]  # side -> arm -> [S, G, 1 + R]
            for arm in arms:
                orders = [SortedRows.from_scores(labels, run.scores(task), labels >= 0) for run in arm.runs]
                for cohort, mask in resampling.cohorts.items():
                    calibration[cohort].append(calibrate([order.where(mask) for order in orders]))
                for aucs, side, buckets in zip(values, sides, kept, strict=True):
                    aucs.append(np.stack([_auc_by_bucket(order, side, buckets, resampling) for order in orders]))
                progress.update(len(orders))
            by_views = [_by_views(arms, values[s], labels, sides[s], kept[s], resampling) for s in (0, 1)]
            yield TaskScores(task, calibration, *by_views)


def calibrate(orders: Sequence[SortedRows]) -> Calibration:
    """Bins of equally many rows in the order of the score, the same number for every seed; means over the seeds."""
    rows, positives = len(orders[0].labels), int(orders[0].labels.sum())
    bins = min(min(positives, rows - positives) // PER_BIN, BINS)
    if bins < 2:
        return Calibration(np.empty(0), np.empty(0), rows, positives)

    def means(values: FloatArray) -> FloatArray:
        return np.array([part.mean() for part in np.array_split(values.astype(np.float64), bins)])

    predicted = np.mean([means(order.scores) for order in orders], axis=0)
    observed = np.mean([means(order.labels) for order in orders], axis=0)
    return Calibration(predicted, observed, rows, positives)


def wilson(rate: FloatArray, rows: float) -> tuple[FloatArray, FloatArray]:
    """95% interval of rates seen in so many rows each (Wilson 1927): low and high, float64 [K]. rate: float64 [K]."""
    z = 1.96
    center = (rate + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(rate * (1 - rate) / rows + z**2 / (4 * rows**2))
    return center - half, center + half


def _enough(labels: IntArray, buckets: IntArray) -> IntArray:
    """The buckets with at least ten rows of either class."""
    size = int(buckets.max()) + 1
    counts = np.array([np.bincount(buckets[labels == label], minlength=size) for label in (0, 1)])
    return np.flatnonzero(counts.min(axis=0) >= PER_BIN)


def _auc_by_bucket(order: SortedRows, buckets: IntArray, kept: IntArray, resampling: Resampling) -> FloatArray:
    """AUC in the G kept buckets, float64 [G, 1 + R]."""
    inside: BoolArray = np.isin(buckets, kept)
    pairs = order.where(inside).grouped(buckets).pairs().of_units(resampling.users)
    return (
        np.array([pairs.auc(draw.astype(np.float64)) for draw in resampling.draws])
        .reshape(len(resampling.draws), len(kept))
        .T
    )


def _by_views(
    arms: Sequence[ReportedArm],
    values: Sequence[FloatArray],
    labels: IntArray,
    buckets: IntArray,
    kept: IntArray,
    resampling: Resampling,
) -> ByViews:
    known = labels >= 0
    inside = [known & (buckets == g) for g in kept]
    rows = [int(np.count_nonzero(mask)) for mask in inside]
    users = [effective_users(labels[mask], resampling.users[mask]) for mask in inside]
    nothing = np.zeros((1, values[0].shape[-1]))
    seeds = [[run.seed for run in arm.runs] for arm in arms]
    levels: list[list[Interval | None]] = []
    differences: list[list[Interval | None]] = []
    for aucs, arm_seeds in zip(values, seeds, strict=True):
        levels.append([contrast(aucs[:, i], nothing, n, paired=False) for i, n in enumerate(users)])
        both = [seed for seed in arm_seeds if seed in seeds[0]]
        arm = aucs[[arm_seeds.index(seed) for seed in both]] if both else aucs
        base = values[0][[seeds[0].index(seed) for seed in both]] if both else values[0]
        differences.append([contrast(arm[:, i], base[:, i], n, paired=bool(both)) for i, n in enumerate(users)])
    differences[0] = [None] * len(kept)
    return ByViews(kept.tolist(), rows, levels, differences)
