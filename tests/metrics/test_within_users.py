"""The protocol's GAUC and nDCG@5 against double loops in float64, ties as the mean over all orders."""

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldrank.metrics.metric import ScoredRows
from coldrank.metrics.positive_gauc import PositiveGauc, positive_aucs
from coldrank.metrics.user_ndcg import UserNdcg
from coldrank.metrics.values import ndcg_of_users


def rows_of(labels, scores, users) -> ScoredRows:
    none = np.zeros(len(labels), np.int64)
    return ScoredRows(
        labels=np.asarray(labels, np.float64),
        predictions=np.asarray(scores, np.float64),
        user_id=np.asarray(users, np.int64),
        item_id=none,
        user_views=none,
        item_views=none,
    )


def naive_gauc(labels, scores, users) -> float:
    won = weight = 0.0
    for user in set(users):
        mine = [n for n in range(len(users)) if users[n] == user]
        positives = [n for n in mine if labels[n] == 1]
        negatives = [n for n in mine if labels[n] == 0]
        if not positives or not negatives:
            continue
        pairs = sum((scores[p] > scores[n]) + 0.5 * (scores[p] == scores[n]) for p in positives for n in negatives)
        won += len(positives) * pairs / (len(positives) * len(negatives))
        weight += len(positives)
    return won / weight if weight else float("nan")


def naive_ndcg(labels, scores, users, k) -> float:
    """Of every user the mean over all orders that agree with the scores; then over all users."""
    found = []
    for user in set(users):
        mine = [n for n in range(len(users)) if users[n] == user]
        dcg = lambda order: sum(labels[n] / math.log2(2 + rank) for rank, n in enumerate(order[:k]))
        best = dcg(sorted(mine, key=lambda n: -labels[n]))
        agree = [o for o in permutations(mine) if all(scores[a] >= scores[b] for a, b in pairwise(o))]
        found.append(sum(dcg(o) for o in agree) / len(agree) / best if best else 0.0)
    return sum(found) / len(found)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(-2, 3)), min_size=1, max_size=14),
    k=st.integers(1, 5),
)
def test_both_equal_double_loops(rows, k) -> None:
    kept = [r for n, r in enumerate(rows) if sum(o[2] == r[2] for o in rows[:n]) < 6]  # all orders of more are many
    labels, scores, users = (list(column) for column in zip(*kept, strict=True))
    given_rows = rows_of(labels, [s / 7 for s in scores], [u * 10**12 for u in users])
    assert PositiveGauc().value(given_rows) == pytest.approx(naive_gauc(labels, scores, users), nan_ok=True)
    assert UserNdcg(k=k).value(given_rows) == pytest.approx(naive_ndcg(labels, scores, users, k), abs=1e-12)


def test_users_of_one_class_count_in_ndcg_and_not_in_gauc() -> None:
    """Users 1 to 4: no positive (0), no negative (1), a right order of two (1), a wrong one (1 / log2(3))."""
    labels, users = [0, 0, 1, 1, 1, 0, 0, 1], [1, 1, 2, 2, 3, 3, 4, 4]
    scores = [0.1, 0.2, 0.3, 0.4, 0.9, 0.1, 0.9, 0.1]
    rows = rows_of(labels, scores, users)
    assert UserNdcg().value(rows) == pytest.approx((0 + 1 + 1 + 1 / math.log2(3)) / 4)
    assert PositiveGauc().value(rows) == pytest.approx(0.5)
    weighted, positives = positive_aucs(np.array(labels), np.array(scores), np.array(users) - 1)
    assert weighted.tolist() == [0, 0, 1, 0] and positives.tolist() == [0, 0, 1, 1]


def test_gauc_weighs_by_positives_not_by_rows() -> None:
    """User 1: one positive of four rows, AUC 1; user 2: three of four, AUC 0."""
    labels, scores = [1, 0, 0, 0, 1, 1, 1, 0], [0.9, 0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.9]
    assert PositiveGauc().value(rows_of(labels, scores, [1] * 4 + [2] * 4)) == pytest.approx(1 / 4)


def test_equal_scores_are_chance_whatever_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    labels, users = rng.integers(0, 2, 500), rng.integers(0, 60, 500)
    mixed = rng.permutation(500)
    same = [UserNdcg().value(rows_of(labels[o], np.ones(500), users[o])) for o in (np.arange(500), mixed)]
    assert same[0] == pytest.approx(same[1], abs=1e-12)
    drawn = [UserNdcg().value(rows_of(labels, rng.random(500), users)) for _ in range(400)]
    assert same[0] == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 20)
    assert PositiveGauc().value(rows_of(labels, np.ones(500), users)) == 0.5


def test_labels_that_are_no_classes_have_neither() -> None:
    rows = rows_of([0, 1, 3000], [0.1, 0.2, 0.3], [1, 1, 1])
    assert math.isnan(UserNdcg().value(rows)) and math.isnan(PositiveGauc().value(rows))
    none = np.empty(0)
    assert len(ndcg_of_users(none, none, np.empty(0, np.int64), 5)) == 0
    assert math.isnan(PositiveGauc().value(rows_of([1, 1], [0.1, 0.2], [1, 2])))
