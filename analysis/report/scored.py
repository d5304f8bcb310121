"""What the predictions say beyond the comparison's cells: calibration by bins, AUC by views of the user and of the item.

Legend: N rows, S seeds, K bins, G buckets of views, R resamples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from coldrank.analysis.compare.interval import Interval, contrast, effective_users
from coldrank.analysis.compare.resample import Sample, make_sample
from coldrank.analysis.compare.rows import Comparison
from coldrank.analysis.compare.runs import read_shared_rows
from coldrank.analysis.report.arms import Arm
from coldrank.metrics.mann_whitney import BoolArray, FloatArray, IntArray, SortedRows

BINS = 10
PER_BIN = 10  # fewer of a class say nothing about a rate or an AUC
MAX_RESAMPLES = 100  # a picture needs no more


@dataclass(frozen=True, slots=True)
class Calibration:
    """Mean prediction and label rate per bin [K], over the seeds; `rows` and `positives` of the cohort; K is 0 where a class
    has fewer than 20 rows."""

    predicted: FloatArray
    observed: FloatArray
    rows: int
    positives: int


@dataclass(frozen=True, slots=True)
class ByViews:
    """AUC per bucket of views: `buckets` [G] numbers of `octaves`, `rows` [G], and per arm the interval of its mean AUC over
    the seeds and that of its difference to the baseline (None for the baseline, and where there is no interval)."""

    buckets: list[int]
    rows: list[int]
    levels: list[list[Interval | None]]
    differences: list[list[Interval | None]]


@dataclass(frozen=True, slots=True)
class TaskScores:
    """One task: calibration per cohort and arm, and AUC by views of the user and of the item."""

    task: str
    calibration: dict[str, list[Calibration]]
    by_user_views: ByViews
    by_item_views: ByViews


def octaves(views: IntArray) -> IntArray:
    """Views [N] -> bucket [N]: 0, 1, 2-3, 4-7 and so on, doubling: bucket g > 0 begins at 2^(g-1)."""
    return np.where(views > 0, np.floor(np.log2(np.maximum(views, 1))) + 1, 0).astype(np.int64)


def score_tasks(arms: Sequence[Arm], tasks: Sequence[str], found: Comparison) -> Iterator[TaskScores]:
    """Each task in turn, with the comparison's cohorts and its draws of users, at most 100 of them."""
    rows = read_shared_rows(arms[0].runs[:1])
    sample = make_sample(rows, found.cohorts, min(found.resamples, MAX_RESAMPLES), found.seed)
    sides = (octaves(rows.user_views), octaves(rows.item_views))
    with tqdm(total=len(tasks) * sum(len(arm.runs) for arm in arms), desc="report", unit="run") as progress:
        for task in tasks:
            labels = rows.labels[task]
            kept = [_enough(labels, side) for side in sides]
            calibration: dict[str, list[Calibration]] = {cohort: [] for cohort in sample.cohorts}
            values: list[list[FloatArray]] = [[], []]  # side -> arm -> [S, G, 1 + R]
            for arm in arms:
                orders = [SortedRows.from_scores(labels, run.scores(task), labels >= 0) for run in arm.runs]
                for cohort, mask in sample.cohorts.items():
                    calibration[cohort].append(calibrate([order.where(mask) for order in orders]))
                for own, side, buckets in zip(values, sides, kept, strict=True):
                    own.append(np.stack([_auc_by_bucket(order, side, buckets, sample) for order in orders]))
                progress.update(len(orders))
            by_views = [_by_views(arms, values[s], labels, sides[s], kept[s], sample) for s in (0, 1)]
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
    """95% interval of a rate seen in so many rows (Wilson 1927): low and high, as `rate`."""
    z = 1.96
    center = (rate + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(rate * (1 - rate) / rows + z**2 / (4 * rows**2))
    return center - half, center + half


def _enough(labels: IntArray, buckets: IntArray) -> IntArray:
    """The buckets with at least ten rows of either class."""
    size = int(buckets.max()) + 1
    counts = np.array([np.bincount(buckets[labels == label], minlength=size) for label in (0, 1)])
    return np.flatnonzero(counts.min(axis=0) >= PER_BIN)


def _auc_by_bucket(order: SortedRows, buckets: IntArray, kept: IntArray, sample: Sample) -> FloatArray:
    """[G, 1 + R], G the buckets kept."""
    inside: BoolArray = np.isin(buckets, kept)
    pairs = order.where(inside).grouped(buckets).pairs().of_units(sample.users)
    return (
        np.array([pairs.auc(draw.astype(np.float64)) for draw in sample.draws]).reshape(len(sample.draws), len(kept)).T
    )


def _by_views(
    arms: Sequence[Arm],
    values: Sequence[FloatArray],
    labels: IntArray,
    buckets: IntArray,
    kept: IntArray,
    sample: Sample,
) -> ByViews:
    known = labels >= 0
    inside = [known & (buckets == g) for g in kept]
    rows = [int(np.count_nonzero(mask)) for mask in inside]
    users = [effective_users(labels[mask], sample.users[mask]) for mask in inside]
    nothing = np.zeros((1, values[0].shape[-1]))
    seeds = [[run.seed for run in arm.runs] for arm in arms]
    levels: list[list[Interval | None]] = []
    differences: list[list[Interval | None]] = []
    for own, own_seeds in zip(values, seeds, strict=True):
        levels.append([contrast(own[:, i], nothing, n, paired=False) for i, n in enumerate(users)])
        both = [seed for seed in own_seeds if seed in seeds[0]]
        arm = own[[own_seeds.index(seed) for seed in both]] if both else own
        base = values[0][[seeds[0].index(seed) for seed in both]] if both else values[0]
        differences.append([contrast(arm[:, i], base[:, i], n, paired=bool(both)) for i, n in enumerate(users)])
    differences[0] = [None] * len(kept)
    return ByViews(kept.tolist(), rows, levels, differences)
