"""Metrics of predicted numbers: of values (seconds watched) and of expected levels (stars).

All take these arrays of numbers, compute in float64, and return nan where the metric has no value:

    labels [N]       finite
    predictions [N]  finite
    users [N]        of each row, integers
"""

import re
from collections.abc import Callable

import numpy as np

from coldrank.metrics.mann_whitney import BoolArray, FloatArray, IntArray, Numbers


def mae(labels: Numbers, predictions: Numbers) -> float:
    """Mean of |prediction - label|."""
    return _mean(np.abs(_float(predictions) - _float(labels)))


def rmse(labels: Numbers, predictions: Numbers) -> float:
    """Root of the mean of (prediction - label)^2."""
    return float(np.sqrt(_mean((_float(predictions) - _float(labels)) ** 2)))


def calibration(labels: Numbers, predictions: Numbers) -> float:
    """Sum of predictions / sum of labels: 1 is right, above 1 predicts too much; nan where the labels sum to 0."""
    total = float(_float(labels).sum())
    return float(_float(predictions).sum()) / total if total else float("nan")


def label_mean(labels: Numbers) -> float:
    """Mean of the labels."""
    return _mean(_float(labels))


def xauc(labels: Numbers, predictions: Numbers) -> float:
    """Share of the pairs of rows whose predictions are in the order of their labels (Zhan et al., 2022); nan of fewer
    than two rows.

    A pair that is equal in labels, in predictions or in both counts half, so predictions that are all equal have 0.5.
    With many equal labels even a perfect prediction stays below 1, by half the share of the pairs that are equal in
    them. Exact: pairs in the wrong order are counted by a radix sort.
    """
    pairs = len(labels) * (len(labels) - 1)  # each from both of its rows
    return 1 - float(_losses(labels, predictions).sum()) / pairs if pairs else float("nan")


def xauc_of_rows(labels: Numbers, predictions: Numbers) -> FloatArray:
    """Of each row the share of its pairs whose predictions are in the order of their labels, as `xauc` counts them:
    float64 [N], nan of fewer than two rows. Its mean is the XAUC."""
    others = len(labels) - 1
    return 1 - _losses(labels, predictions) / others if others > 0 else np.full(len(labels), np.nan)


def _losses(labels: Numbers, predictions: Numbers) -> FloatArray:
    """Of each row the other rows in the wrong order with it, half of those that are equal to it: float64 [N]."""
    label, prediction = (np.unique(x, return_inverse=True)[1].astype(np.int64) for x in (labels, predictions))
    # Those of one label in ascending order: none of their pairs counts as discordant.
    order = np.lexsort((prediction, label))
    discordant = np.empty(len(label), np.int64)
    discordant[order] = _inversions(prediction[order])
    both = np.unique(label * (int(prediction.max(initial=0)) + 1) + prediction, return_inverse=True)[1]
    return discordant + (_equals(label) + _equals(prediction) - _equals(both)) / 2


def ndcg(grades: Numbers, predictions: Numbers, users: IntArray, k: int) -> float:
    """`ndcg_of_users`, plain mean over the users whose rows differ in grade; nan without one.

    grades: numbers [N], not below 0.
    """
    if not len(users):
        return float("nan")
    order = np.lexsort((grades, users))
    starts = np.flatnonzero(np.append(True, np.diff(users[order]) != 0))
    lowest, highest = grades[order][starts], grades[order][np.append(starts[1:], len(order)) - 1]
    return _mean(ndcg_of_users(grades, predictions, users, k)[lowest != highest])


def ndcg_of_users(grades: Numbers, predictions: Numbers, users: IntArray, k: int) -> FloatArray:
    """NDCG@k of each user's rows by their predictions, float64 [U], users by their ids; 0 where all grades are 0.

    DCG@k: the sum over a user's first k rows of (2^grade - 1) / log2(1 + rank), rank from 1 on. Rows of equal
    predictions have the mean of their gains, which is the expectation over their orders. NDCG@k: DCG@k over the
    largest that there is.

    grades: numbers [N], not below 0. A user has one row or more.
    """
    gain = np.exp2(_float(grades)) - 1
    user = np.unique(users, return_inverse=True)[1]
    if not len(user):
        return np.empty(0)
    rows = np.bincount(user)
    order = np.lexsort((-_float(predictions), user))
    first = np.append(True, (np.diff(user[order]) != 0) | (np.diff(predictions[order]) != 0))
    block = np.cumsum(first) - 1
    shared = (np.bincount(block, gain[order]) / np.bincount(block))[block]
    reached, best = (_dcg(x, rows, k) for x in (shared, gain[np.lexsort((-gain, user))]))
    return np.divide(reached, best, out=np.zeros(len(rows)), where=best > 0)


def _dcg(gains: FloatArray, rows: IntArray, k: int) -> FloatArray:
    """Of each user [U]. gains: of all rows, users one after another [N]. rows: of each user [U]."""
    rank = np.arange(len(gains)) - np.repeat(np.cumsum(rows) - rows, rows)
    discounted = np.where(rank < k, gains / np.log2(rank + 2), 0.0)
    return np.asarray(np.bincount(np.repeat(np.arange(len(rows)), rows), discounted), np.float64)


def _equals(codes: IntArray) -> IntArray:
    """Of each row the other rows of its code, int64 [N]. codes: int64 [N], from 0 on."""
    return np.asarray(np.bincount(codes)[codes] - 1)


def _inversions(values: IntArray) -> IntArray:
    """Of each place, with how many others it is in the wrong order: places i < j with values[i] > values[j]; int64 [N].
    values: int64 [N], not below 0.

    A radix sort from the highest bit on. Two values part at the first bit in which they differ; until then they keep
    their order.
    """
    discordant: IntArray = np.zeros(len(values), np.int64)
    places: IntArray = np.arange(len(values))
    for bit in range(int(values.max(initial=0)).bit_length() - 1, -1, -1):
        group, one = values >> (bit + 1), (values >> bit) & 1
        starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
        sizes = np.diff(np.append(starts, len(values)))
        start = np.repeat(starts, sizes)
        zeros = np.repeat(np.add.reduceat(1 - one, starts), sizes)
        ones_before = np.cumsum(one) - one
        ones_before -= ones_before[start]
        is_one: BoolArray = one == 1
        zeros_before = np.arange(len(values)) - start - ones_before
        discordant[places] += np.where(is_one, zeros - zeros_before, ones_before)
        place = start + np.where(is_one, zeros + ones_before, zeros_before)
        values, places = _scattered(values, place), _scattered(places, place)
    return discordant


def _scattered(values: IntArray, place: IntArray) -> IntArray:
    moved = np.empty_like(values)
    moved[place] = values
    return moved


def _float(values: Numbers) -> FloatArray:
    return values.astype(np.float64)


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


# Name -> the metric of labels and predictions. Beside them `ndcg@K`, for any K.
VALUES: dict[str, Callable[[Numbers, Numbers], float]] = {
    "xauc": xauc,
    "mae": mae,
    "rmse": rmse,
    "calibration": calibration,
    "label_mean": lambda labels, _: label_mean(labels),
}


def ndcg_k(name: str) -> int:
    """K of `ndcg@K`; 0 for another name."""
    match = re.fullmatch(r"ndcg@([1-9]\d*)", name)
    return int(match[1]) if match else 0
