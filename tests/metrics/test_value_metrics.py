"""Metrics of numbers against loops written from the definitions."""

import math
from itertools import combinations, pairwise, permutations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau
from sklearn.metrics import ndcg_score

from coldrank.data.cohorts import CohortConfig
from coldrank.data.errors import UserError
from coldrank.metrics import values
from coldrank.metrics.by_cohort import evaluate_predictions
from coldrank.metrics.mann_whitney import FloatArray, IntArray, Numbers
from coldrank.metrics.metric import Metric, metric_values
from coldrank.models.heads import Ordinal, Regression


def naive_xauc(labels: Numbers, predictions: Numbers) -> float:
    """Every pair of rows."""
    won = [
        0.5
        if labels[i] == labels[j] or predictions[i] == predictions[j]
        else float((labels[i] < labels[j]) == (predictions[i] < predictions[j]))
        for i, j in combinations(range(len(labels)), 2)
    ]
    return sum(won) / len(won) if won else float("nan")


def naive_ndcg(grades: Numbers, predictions: Numbers, users: Numbers, k: int) -> float:
    """Of every user, the mean over all orders of its rows that agree with the predictions."""
    found = []
    for user in set(users.tolist()):
        grade, prediction = grades[users == user].tolist(), predictions[users == user].tolist()
        if len(set(grade)) < 2:
            continue
        dcg = lambda order, grade=grade: sum((2 ** grade[i] - 1) / math.log2(2 + r) for r, i in enumerate(order[:k]))
        every = list(permutations(range(len(grade))))
        agree = [o for o in every if all(prediction[a] >= prediction[b] for a, b in pairwise(o))]
        found.append(np.mean([dcg(o) for o in agree]) / max(dcg(o) for o in every))
    return float(np.mean(found)) if found else float("nan")


small = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=9)


@settings(max_examples=150, deadline=None)
@given(rows=small, k=st.integers(1, 4))
def test_they_equal_loops_on_small_tables(rows: list[tuple[int, int, int]], k: int) -> None:
    labels, predictions, users = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    assert values.xauc(labels, predictions / 4) == pytest.approx(naive_xauc(labels, predictions), nan_ok=True)
    each = values.xauc_of_rows(labels, predictions / 4)
    for row in range(len(labels) if len(labels) > 1 else 0):
        others = [r for r in range(len(labels)) if r != row]
        pairs = [naive_xauc(labels[[row, other]], predictions[[row, other]]) for other in others]
        assert each[row] == pytest.approx(np.mean(pairs))
    few = np.concatenate([np.flatnonzero(users == u)[:5] for u in range(3)])  # all orders of more are many
    labels, predictions, users = labels[few], predictions[few], users[few]
    ours = values.ndcg(labels, predictions, users.astype(np.int64) * 10**12 - 5, k)
    assert ours == pytest.approx(naive_ndcg(labels, predictions, users, k), nan_ok=True)


@pytest.mark.parametrize("levels", [0, 3, 40])
def test_xauc_is_kendall_s_tau_a(levels: int) -> None:
    labels, predictions = sample(3000, levels)
    tau_b = kendalltau(labels, predictions).statistic
    pairs = 3000 * 2999 / 2
    untied = [pairs - sum(c * (c - 1) / 2 for c in np.unique(x, return_counts=True)[1]) for x in (labels, predictions)]
    tau_a = tau_b * math.sqrt(untied[0] * untied[1]) / pairs
    assert values.xauc(labels, predictions) == pytest.approx(0.5 + tau_a / 2, abs=1e-12)
    assert values.xauc(labels, -predictions) == pytest.approx(0.5 - tau_a / 2, abs=1e-12)


def test_xauc_of_the_labels_themselves_lacks_half_of_the_equal_pairs() -> None:
    labels = np.array([0.0, 0.0, 0.0, 1.0, 2.5])
    assert values.xauc(labels, labels) == pytest.approx(1 - 0.5 * 3 / 10)
    assert values.xauc(np.arange(7.0), np.arange(7.0)) == 1.0 and values.xauc(np.arange(7.0), -np.arange(7.0)) == 0.0
    assert values.xauc(labels, np.ones(5)) == 0.5


@pytest.mark.parametrize("k", [1, 3, 10])
def test_ndcg_equals_scikit_learn(k: int) -> None:
    grades, predictions = np.random.default_rng(k).integers(0, 5, (40, 12)), np.random.default_rng(9).random((40, 12))
    predictions = np.round(predictions, 1)  # equal ones, whose orders both average over
    expected = np.mean([ndcg_score([2.0**g - 1], [p], k=k) for g, p in zip(grades, predictions, strict=True)])
    users = np.repeat(np.arange(40), 12)
    mixed = np.random.default_rng(2).permutation(480)
    ours = values.ndcg(grades.ravel()[mixed], predictions.ravel()[mixed], users[mixed], k)
    assert ours == pytest.approx(expected)


def test_means_and_their_edges() -> None:
    labels, predictions = np.array([0.0, 2.0, 4.0]), np.array([1.0, 2.0, 0.0], np.float32)
    assert values.mae(labels, predictions) == pytest.approx(5 / 3)
    assert values.rmse(labels, predictions) == pytest.approx(math.sqrt(17 / 3))
    assert values.calibration(labels, predictions) == 0.5 and values.label_mean(labels) == 2.0
    none = np.empty(0)
    for metric in values.VALUES.values():
        assert math.isnan(metric(none, none))
    assert math.isnan(values.xauc(labels[:1], predictions[:1]))
    assert math.isnan(values.calibration(np.zeros(3), predictions))
    assert math.isnan(values.ndcg(none, none, np.empty(0, np.int64), 5))
    assert math.isnan(values.ndcg(np.ones(3), predictions, np.array([1, 1, 2]), 5)), "no user's rows differ"
    assert [values.ndcg_k(name) for name in ("ndcg@5", "ndcg@10", "ndcg@0", "ndcg@x", "mae")] == [5, 10, 0, 0, 0]


def sample(rows: int, levels: int, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Skewed labels and noisy predictions; levels > 0: rounded, so that many are equal."""
    rng = np.random.default_rng(seed)
    labels = rng.gamma(0.7, 9.0, rows)
    predictions = labels * rng.lognormal(0, 1, rows)
    return (np.round(labels / 60 * levels), np.round(predictions / 90 * levels)) if levels else (labels, predictions)


def predictions(rows: int = 2000) -> pl.DataFrame:
    labels, found = sample(rows, 0)
    rng = np.random.default_rng(3)
    users: IntArray = rng.integers(-(2**62), 2**62, 80)[rng.integers(0, 80, rows)]
    known, none = pl.Series(rng.random(rows) < 0.7), pl.Series([None] * rows, dtype=pl.Float32)
    return pl.DataFrame(
        {
            "user_id": users,
            "user_views": rng.integers(0, 30, rows).astype(np.int32),
            "item_views": rng.integers(0, 200, rows).astype(np.int32),
            "label_watch_s": pl.Series(labels.astype(np.float32)).zip_with(known, none),
            "pred_watch_s": found.astype(np.float32),
            "label_stars": np.clip(np.round(labels / 8), 0, 4).astype(np.float32) + 1,
            "pred_stars": (1 + 4 * found / (found + 9)).astype(np.float32),
        }
    )


def test_evaluate_predictions_has_those_of_each_head_on_each_cohort() -> None:
    frame = predictions()
    tasks = {"watch_s": Regression(transform="log1p"), "stars": Ordinal(5, ks=(3,))}
    by_metric = {(r["task"], r["cohort"], r["metric"]): r for r in evaluate_predictions(frame, tasks)}
    part = frame.filter((pl.col("user_views") <= 10) & pl.col("label_watch_s").is_not_null())
    labels, found = (part[c].to_numpy().astype(np.float64) for c in ("label_watch_s", "pred_watch_s"))
    for name, metric in values.VALUES.items():
        row = by_metric["watch_s", "new_user", name]
        assert row["value"] == pytest.approx(metric(labels, found)) and row["n"] == len(part) > 100
    part = frame.filter(pl.col("item_views") > 50)
    stars = [part[c].to_numpy() for c in ("label_stars", "pred_stars", "user_id")]
    assert by_metric["stars", "regular_item", "ndcg@3"]["value"] == pytest.approx(
        values.ndcg(stars[0] - 1, *stars[1:], 3)
    )
    assert by_metric["stars", "regular_item", "mae"]["value"] == pytest.approx(np.abs(stars[0] - stars[1]).mean())
    assert len(by_metric) == 5 * (5 + 5)
    none = evaluate_predictions(frame.with_columns(user_views=pl.lit(99)), tasks)
    assert all(r["value"] is None and r["n"] == 0 for r in none if r["cohort"] == "new_user")


def test_columns_that_are_wrong_are_named() -> None:
    frame, tasks = predictions(20), {"watch_s": Regression()}
    for column, value, text in (
        ("pred_watch_s", None, "pred_watch_s is None at row 0; expected a finite number"),
        ("pred_watch_s", math.inf, "pred_watch_s is inf at row 0; expected a finite number"),
        ("label_watch_s", math.inf, "label_watch_s is inf at row 0; expected a finite number"),
        ("label_watch_s", "long", "column label_watch_s is String; expected numbers"),
    ):
        with pytest.raises(UserError, match=text):
            evaluate_predictions(frame.with_columns(pl.lit(value).alias(column)), tasks)
    with pytest.raises(UserError, match="no column pred_watch_s"):
        evaluate_predictions(frame.drop("pred_watch_s"), tasks)


class Failing(Metric):
    """Has no value, in its own way."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def value(self, rows: object) -> float:
        return self.answer / 1 if self.answer == "x" else self.answer  # type: ignore[return-value, operator]


@pytest.mark.parametrize("answer", [None, "x"])
def test_a_metric_that_gives_no_number_is_named(answer: object):
    column = pl.Series([1, 2, 3])
    frame = pl.DataFrame({n: column for n in ("user_id", "item_id", "user_views", "item_views")})
    frame = frame.with_columns(label_like=pl.Series([0, 1, 1]), prob_like=pl.Series([0.1, 0.2, 0.3]))
    with pytest.raises(UserError, match="metrics: failing, of like, all: TypeError"):
        metric_values(frame, ["like"], CohortConfig(), [Failing(answer)])
