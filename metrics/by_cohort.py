"""Metrics per task and cohort. Those of probabilities are here: AUC, AUC at fixed AVC, GAUC, NE, log loss,
calibration; those of other numbers in values.py.

All take these arrays of numbers, compute in float64, and return nan where the metric has no value:

    labels [N]   1, 0, or unknown: NaN or negative; unknown rows are left out
    scores [N]   one that is not finite raises ValueError
    weights [N]  how often a row counts, for instance the multiplicities of a bootstrap; None: once

AVC: accumulated view count of the user before the event.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from coldrank.data.cohorts import CohortConfig, cohort_masks
from coldrank.metrics.columns import int_column, label_column, number_column, score_column
from coldrank.metrics.mann_whitney import BoolArray, FloatArray, IntArray, Numbers, SortedRows
from coldrank.metrics.values import VALUES, ndcg, ndcg_k
from coldrank.models.heads.head import Head

LOG_CLIP = 1e-7  # float32 cannot tell probabilities closer to 1 than this
EXACT_AVC = 10
# Of a task whose head gives probabilities.
BINARY = ("auc", "auc_fixed_avc", "gauc", "ne", "logloss", "calibration", "label_rate")
# Of the rows of a cohort, bool [N]: metric -> value.
_Measure = Callable[[BoolArray], dict[str, float]]


def avc_groups(avc: IntArray) -> IntArray:
    """The group of each AVC, int8 [N]: 0 to 10 exactly, then 11-15, 16-31, 32-63 and so on. avc: integers [N].

    Above 10 one count holds too few rows for an AUC, and behaviour changes slowly with the count.
    """
    octave = np.floor(np.log2(np.maximum(avc, 1))).astype(np.int8)
    return np.where(avc <= EXACT_AVC, avc, octave + EXACT_AVC - 2).astype(np.int8)


def known_labels(labels: Numbers) -> BoolArray:
    """Which rows have a known label, bool [N]; a label other than 0, 1 or unknown raises ValueError."""
    known: BoolArray = labels >= 0  # False for NaN too
    wrong = known & (labels != 0) & (labels != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"label {labels[row]} at row {row}: expected 0, 1 or unknown (NaN or -1)")
    return known


def auc(labels: Numbers, scores: Numbers, weights: Numbers | None = None) -> float:
    """Area under the ROC curve, equal scores counted half (Mann-Whitney); nan where a class is missing."""
    values, _ = _group_aucs(labels, scores, None, weights)
    return float(values[0]) if len(values) else float("nan")


def auc_fixed_avc(
    labels: Numbers, scores: Numbers, avc: IntArray, max_avc: int | None = None, weights: Numbers | None = None
) -> float:
    """Plain mean, over the AVC groups (`avc_groups`) that have both classes, of the AUC inside the group.

    A score that only knows how much the user has watched gains nothing here.
    avc: integers [N]. max_avc: rows above it are left out; None: none are.
    """
    if max_avc is not None:
        use = avc <= max_avc
        labels, scores, avc = labels[use], scores[use], avc[use]
        weights = None if weights is None else weights[use]
    values, _ = _group_aucs(labels, scores, avc_groups(avc), weights)
    return mean_or_nan(values)


def gauc(labels: Numbers, scores: Numbers, users: Numbers, weights: Numbers | None = None) -> float:
    """AUC per user, averaged over the users that have both classes with their sample counts as weights. users: [N]."""
    codes = np.unique(users, return_inverse=True)[1]
    values, groups = _group_aucs(labels, scores, codes, weights)
    known = known_labels(labels)
    counts = np.bincount(codes[known], weights=None if weights is None else weights[known])
    return weighted_mean(values, counts[groups])


def logloss(labels: Numbers, scores: Numbers, weights: Numbers | None = None) -> float:
    """Mean binary cross-entropy in nats, probabilities clipped to [1e-7, 1 - 1e-7]."""
    known = _usable(labels, scores)
    return weighted_mean(row_logloss(labels[known], scores[known]), _weights(known, weights))


def ne(labels: Numbers, scores: Numbers, weights: Numbers | None = None) -> float:
    """Normalised entropy: log loss / entropy of the label rate of the same rows (He et al. 2014, Eq. 3).

    Below 1 is better than predicting the rate; nan where a class is missing.
    """
    known = _usable(labels, scores)
    weight = _weights(known, weights)
    label = labels[known].astype(np.float64)
    return float(normalised(weighted_mean(row_logloss(label, scores[known]), weight), weighted_mean(label, weight)))


def calibration(labels: Numbers, scores: Numbers, weights: Numbers | None = None) -> float:
    """Mean prediction / mean label: 1 is right, above 1 predicts too much; nan without positives."""
    known = _usable(labels, scores)
    weight = _weights(known, weights)
    rate = weighted_mean(labels[known].astype(np.float64), weight)
    return weighted_mean(scores[known].astype(np.float64), weight) / rate if rate > 0 else float("nan")


def is_metric(name: str) -> bool:
    """Whether a name is of a metric that runs have without being asked."""
    return name in BINARY or name in VALUES or name == "best_auc"


def unknown_metrics(head: Head) -> list[str]:
    """Names that a head is judged by and that are no metric of what it gives."""
    if head.is_binary:
        return [name for name in head.metrics if name not in BINARY]
    return [name for name in head.metrics if name not in VALUES and not ndcg_k(name)]


def evaluate_predictions(
    frame: pl.DataFrame, tasks: Mapping[str, Head], cohorts: CohortConfig | None = None
) -> list[dict[str, str | float | int | None]]:
    """Every metric of every task and cohort, as rows `{"cohort", "task", "metric", "value", "n"}`.

    frame: has `user_id`, `user_views`, `item_views` and per task `label_<task>` (null: unknown) and `prob_<task>`, or
        `pred_<task>` of a head that gives no probability. A simulated log has the true probability `true_<task>` too;
        `best_auc` is the AUC of that.
    value: None where the metric has none, as a class is missing. n: number of labelled rows.
    Missing columns, nulls in columns other than labels and predictions that are not finite raise UserError.
    """
    user_views, item_views = int_column(frame, "user_views"), int_column(frame, "item_views")
    masks = cohort_masks(user_views, item_views, cohorts or CohortConfig())
    users = np.unique(int_column(frame, "user_id"), return_inverse=True)[1]
    avc = avc_groups(user_views)
    rows: list[dict[str, str | float | int | None]] = []
    for task, head in tasks.items():
        known, measure = (
            _of_probabilities(frame, task, head, users, avc)
            if head.is_binary
            else _of_numbers(frame, task, head, users)
        )
        for cohort, mask in masks.items():
            n = int(np.count_nonzero(mask & known))
            for metric, value in measure(mask).items():
                finite = value if np.isfinite(value) else None
                rows.append({"cohort": cohort, "task": task, "metric": metric, "value": finite, "n": n})
    return rows


def _of_probabilities(
    frame: pl.DataFrame, task: str, head: Head, users: IntArray, avc: IntArray
) -> tuple[BoolArray, _Measure]:
    """Which labels are known, bool [N], and the metrics of a task of 0 and 1."""
    labels, scores = label_column(frame, task), score_column(frame, f"prob_{task}")
    true = score_column(frame, f"true_{task}") if f"true_{task}" in frame.columns else None
    known = labels >= 0
    orders = _TaskOrders.from_scores(labels, scores, known, users, avc)
    by_truth = None if true is None else SortedRows.from_scores(labels, true, known)

    def measure(mask: BoolArray) -> dict[str, float]:
        every = _task_metrics(orders.where(mask), users)
        values = {name: every[name] for name in head.metrics}
        if by_truth is not None:
            values["best_auc"] = mean_or_nan(by_truth.where(mask).pairs().auc())
        return values

    return known, measure


def _of_numbers(frame: pl.DataFrame, task: str, head: Head, users: IntArray) -> tuple[BoolArray, _Measure]:
    """Which labels are known, bool [N], and the metrics of a task of numbers."""
    labels, predictions = number_column(frame, f"label_{task}"), number_column(frame, f"pred_{task}", unknown=False)
    known = ~np.isnan(labels)

    def measure(mask: BoolArray) -> dict[str, float]:
        use = mask & known
        label, prediction = labels[use], predictions[use]
        grades = head.grades(label)
        return {
            name: ndcg(grades, prediction, users[use], k) if (k := ndcg_k(name)) else VALUES[name](label, prediction)
            for name in head.metrics
        }

    return known, measure


@dataclass(frozen=True, kw_only=True, slots=True)
class _TaskOrders:
    """The labelled rows of a task in three orders."""

    score: SortedRows
    """By score."""
    user: SortedRows
    """By user, then score."""
    avc: SortedRows
    """By AVC group, then score."""

    @classmethod
    def from_scores(
        cls, labels: Numbers, scores: Numbers, known: BoolArray, users: IntArray, avc: IntArray
    ) -> "_TaskOrders":
        score = SortedRows.from_scores(labels, scores, known)
        return cls(score=score, user=score.grouped(users), avc=score.grouped(avc))

    def where(self, mask: BoolArray) -> "_TaskOrders":
        return _TaskOrders(score=self.score.where(mask), user=self.user.where(mask), avc=self.avc.where(mask))


def _task_metrics(orders: _TaskOrders, users: IntArray) -> dict[str, float]:
    label, score = orders.score.labels.astype(np.float64), orders.score.scores.astype(np.float64)
    rate, loss = mean_or_nan(label), mean_or_nan(row_logloss(label, score))
    by_user = orders.user.pairs()
    return {
        "auc": mean_or_nan(orders.score.pairs().auc()),
        "auc_fixed_avc": mean_or_nan(orders.avc.pairs().auc()),
        "gauc": weighted_mean(by_user.auc(), np.bincount(users[orders.user.rows])[by_user.groups]),
        "ne": float(normalised(loss, rate)),
        "logloss": loss,
        "calibration": mean_or_nan(score) / rate if rate > 0 else float("nan"),
        "label_rate": rate,
    }


def row_logloss(labels: Numbers, scores: Numbers) -> FloatArray:
    """Binary cross-entropy per row in nats, float64 [N], of labels 0 or 1 and clipped probabilities."""
    p = np.clip(scores.astype(np.float64), LOG_CLIP, 1 - LOG_CLIP)
    return np.asarray(-np.log(np.where(labels == 1, p, 1 - p)))


def normalised(loss: Numbers | float, rate: Numbers | float) -> FloatArray:
    """Log loss over the entropy of the label rate, element-wise, float64; nan where the rate is 0, 1 or nan."""
    loss, rate = np.asarray(loss, dtype=np.float64), np.asarray(rate, dtype=np.float64)
    p = np.where((rate > 0) & (rate < 1), rate, np.nan)
    return np.asarray(loss / -(p * np.log(p) + (1 - p) * np.log1p(-p)))


def mean_or_nan(values: FloatArray) -> float:
    """Mean of the values, float64 [N], that are not nan; nan where there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def weighted_mean(values: FloatArray, weights: Numbers) -> float:
    """Mean of the values, float64 [N], that are not nan, by weights [N]; nan where they weigh nothing."""
    use = ~np.isnan(values)
    total = float(weights[use].sum())
    return float(values[use] @ weights[use]) / total if total > 0 else float("nan")


def _usable(labels: Numbers, scores: Numbers) -> BoolArray:
    known = known_labels(labels)
    if len(labels) != len(scores):
        raise ValueError(f"{len(labels)} labels but {len(scores)} scores")
    wrong = known & ~np.isfinite(scores)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"score {scores[row]} at row {row}: expected a finite number")
    return known


def _weights(known: BoolArray, weights: Numbers | None) -> FloatArray:
    return np.ones(int(known.sum())) if weights is None else weights[known].astype(np.float64)


def _group_aucs(
    labels: Numbers, scores: Numbers, groups: IntArray | None, weights: Numbers | None
) -> tuple[FloatArray, IntArray]:
    """AUC per group with both classes, and these groups' numbers."""
    rows = SortedRows.from_scores(labels, scores, _usable(labels, scores))
    pairs = (rows if groups is None else rows.grouped(groups)).pairs()
    return pairs.auc(None if weights is None else weights.astype(np.float64)), pairs.groups
