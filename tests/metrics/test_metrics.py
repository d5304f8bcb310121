"""Metrics against scikit-learn and against loops written from the definitions."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score
from tiny import sample_base

from coldrank.data.cohorts import CohortConfig
from coldrank.data.errors import UserError
from coldrank.metrics import by_cohort as metrics
from coldrank.metrics.by_cohort import evaluate_predictions, unknown_metrics
from coldrank.metrics.mann_whitney import FloatArray, IntArray, Numbers, SortedRows
from coldrank.models.heads import Binary, Ordinal, Regression
from coldrank.train.checks import validate


def naive_auc(labels: Numbers, scores: Numbers, weights: Numbers | None = None) -> float:
    """Every pair of a positive and a negative, counted in loops."""
    weight = np.ones(len(labels)) if weights is None else weights
    won = total = 0.0
    for i, j in product(np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)):
        total += weight[i] * weight[j]
        won += weight[i] * weight[j] * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
    return won / total if total else float("nan")


def sample(rows: int, seed: int, levels: int = 0) -> tuple[IntArray, FloatArray]:
    """Labels drawn from the scores; `levels` > 0 rounds the scores so that many are equal."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(1, 3, rows)
    labels = (rng.random(rows) < scores).astype(np.int8)
    return labels, np.round(scores * levels) / levels if levels else scores


@pytest.mark.parametrize("levels", [0, 4, 50])
def test_auc_and_logloss_equal_scikit_learn(levels: int) -> None:
    labels, scores = sample(2000, seed=levels, levels=levels)
    weights = np.random.default_rng(1).integers(0, 4, 2000)
    assert metrics.auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected = roc_auc_score(labels, scores, sample_weight=weights)
    assert metrics.auc(labels, scores, weights) == pytest.approx(expected, abs=1e-12)
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    assert metrics.logloss(labels, scores, weights) == pytest.approx(log_loss(labels, clipped, sample_weight=weights))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([0, 1]), st.integers(0, 4), st.integers(0, 3), st.integers(0, 2)),
        min_size=1,
        max_size=25,
    )
)
def test_auc_and_gauc_equal_loops_on_small_tables(rows: list[tuple[int, int, int, int]]) -> None:
    labels, scores, users, weights = (np.array(column) for column in zip(*rows, strict=True))
    assert metrics.auc(labels, scores / 4) == pytest.approx(naive_auc(labels, scores), nan_ok=True)
    assert metrics.auc(labels, scores / 4, weights) == pytest.approx(naive_auc(labels, scores, weights), nan_ok=True)
    total = weight = 0.0
    for user in set(users):
        of_user = users == user
        value = naive_auc(labels[of_user], scores[of_user], weights[of_user])
        if not np.isnan(value):
            total += value * weights[of_user].sum()
            weight += weights[of_user].sum()
    expected = total / weight if weight else float("nan")
    assert metrics.gauc(labels, scores / 4, users * 10**12 - 5, weights) == pytest.approx(expected, nan_ok=True)


def test_all_rows_count_where_none_is_said_to_be_unknown() -> None:
    labels, scores = sample(60, seed=12, levels=9)
    every = np.ones(60, dtype=np.bool_)
    for rows in (SortedRows.from_scores(labels, scores), SortedRows.from_scores(labels, scores, every)):
        assert rows.pairs().auc() == pytest.approx([naive_auc(labels, scores)])
    part = np.arange(60) % 3 > 0
    assert SortedRows.from_scores(labels, scores, part).pairs().auc() == pytest.approx(
        [naive_auc(labels[part], scores[part])]
    )


def test_weights_count_like_repeated_rows() -> None:
    labels, scores = sample(300, seed=3, levels=20)
    rng = np.random.default_rng(4)
    users, avc, weights = rng.integers(0, 30, 300), rng.integers(0, 40, 300), rng.integers(0, 3, 300)
    repeat = np.repeat(np.arange(300), weights)
    for function in (metrics.auc, metrics.logloss, metrics.ne, metrics.calibration):
        assert function(labels, scores, weights) == pytest.approx(function(labels[repeat], scores[repeat]))
    weighted = metrics.auc_fixed_avc(labels, scores, avc, weights=weights)
    assert weighted == pytest.approx(metrics.auc_fixed_avc(labels[repeat], scores[repeat], avc[repeat]))
    weighted = metrics.gauc(labels, scores, users, weights)
    assert weighted == pytest.approx(metrics.gauc(labels[repeat], scores[repeat], users[repeat]))


def test_avc_groups_are_exact_to_ten_and_then_double() -> None:
    avc = np.array([0, 1, 9, 10, 11, 15, 16, 31, 32, 63, 64, 1_000_000])
    assert metrics.avc_groups(avc).tolist() == [0, 1, 9, 10, 11, 11, 12, 12, 13, 13, 14, 27]


def test_auc_fixed_avc_is_the_plain_mean_over_avc_groups() -> None:
    labels, scores = sample(1000, seed=5, levels=30)
    avc = np.random.default_rng(6).integers(0, 40, 1000)
    group = [a if a <= 10 else 11 if a < 16 else 12 if a < 32 else 13 for a in avc]
    values = [naive_auc(labels[np.array(group) == g], scores[np.array(group) == g]) for g in range(14)]
    assert metrics.auc_fixed_avc(labels, scores, avc) == pytest.approx(np.nanmean(values))
    assert metrics.auc_fixed_avc(labels, scores, avc, max_avc=10) == pytest.approx(np.nanmean(values[:11]))


def test_a_score_that_only_knows_the_avc_gains_nothing_at_fixed_avc() -> None:
    rng = np.random.default_rng(7)
    avc = rng.integers(0, 11, 5000)
    labels = (rng.random(5000) < 0.1 + 0.08 * avc).astype(np.int8)
    assert metrics.auc(labels, avc / 11) > 0.7
    assert metrics.auc_fixed_avc(labels, avc / 11, avc) == 0.5


def test_ne_and_calibration_of_the_base_rate_are_one() -> None:
    labels, _ = sample(1000, seed=8)
    rate = np.full(1000, labels.mean())
    assert metrics.ne(labels, rate) == pytest.approx(1.0)
    assert metrics.calibration(labels, rate) == pytest.approx(1.0)
    assert metrics.calibration(labels, 2 * rate) == pytest.approx(2.0)


def test_unknown_labels_are_left_out() -> None:
    labels, scores = sample(200, seed=9)
    users = np.random.default_rng(10).integers(0, 20, 200)
    unknown = np.arange(200) % 3 == 0
    keep = ~unknown
    noisy = np.where(unknown, np.nan, scores)
    for masked in (np.where(unknown, -1, labels), np.where(unknown, np.nan, labels)):
        assert metrics.auc(masked, noisy) == metrics.auc(labels[keep], scores[keep])
        assert metrics.gauc(masked, noisy, users) == metrics.gauc(labels[keep], scores[keep], users[keep])
        assert metrics.auc_fixed_avc(masked, noisy, users) == metrics.auc_fixed_avc(
            labels[keep], scores[keep], users[keep]
        )
        assert metrics.ne(masked, noisy) == pytest.approx(metrics.ne(labels[keep], scores[keep]))


@pytest.mark.parametrize("labels", [[], [1, 1], [0, 0], [-1, -1], [1, -1]])
def test_without_both_classes_there_is_no_value(labels: list[int]) -> None:
    array, scores = np.array(labels, dtype=np.int8), np.full(len(labels), 0.25)
    rows = np.arange(len(labels))
    assert np.isnan(metrics.auc(array, scores))
    assert np.isnan(metrics.ne(array, scores))
    assert np.isnan(metrics.gauc(array, scores, rows))
    assert np.isnan(metrics.auc_fixed_avc(array, scores, rows))


def test_wrong_labels_and_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="label 2 at row 1"):
        metrics.auc(np.array([0, 2]), np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="score nan at row 0"):
        metrics.logloss(np.array([0, 1]), np.array([np.nan, 0.2]))
    with pytest.raises(ValueError, match="2 labels but 1 scores"):
        metrics.auc(np.array([0, 1]), np.array([0.1]))


def predictions(rows: int = 3000) -> pl.DataFrame:
    rng = np.random.default_rng(11)
    true = rng.beta(1, 2, rows)
    label = pl.Series((rng.random(rows) < true).astype(np.int8))
    return pl.DataFrame(
        {
            "user_id": rng.integers(-(2**62), 2**62, 100)[rng.integers(0, 100, rows)],
            "user_views": rng.integers(0, 60, rows).astype(np.int32),
            "item_views": rng.integers(0, 200, rows).astype(np.int32),
            "label_like": label.zip_with(pl.Series(rng.random(rows) < 0.8), pl.Series([None] * rows, dtype=pl.Int8)),
            "prob_like": np.clip(true + rng.normal(0, 0.2, rows), 0, 1).astype(np.float32),
            "true_like": true.astype(np.float32),
        }
    )


def test_evaluate_predictions_equals_the_metrics_on_each_cohort() -> None:
    frame = predictions()
    by_metric = {(r["cohort"], r["metric"]): r for r in evaluate_predictions(frame, {"like": Binary()})}
    cohorts = {
        "all": pl.lit(True),
        "new_user": pl.col("user_views") <= 10,
        "regular_user": pl.col("user_views") > 10,
        "new_item": pl.col("item_views") <= 50,
        "regular_item": pl.col("item_views") > 50,
    }
    for cohort, condition in cohorts.items():
        part = frame.filter(condition & pl.col("label_like").is_not_null())
        labels, scores, true = (part[c].to_numpy() for c in ("label_like", "prob_like", "true_like"))
        expected = {
            "auc": roc_auc_score(labels, scores),
            "auc_fixed_avc": metrics.auc_fixed_avc(labels, scores, part["user_views"].to_numpy()),
            "gauc": metrics.gauc(labels, scores, part["user_id"].to_numpy()),
            "ne": metrics.ne(labels, scores),
            "logloss": metrics.logloss(labels, scores),
            "calibration": scores.astype(np.float64).mean() / labels.mean(),
            "label_rate": labels.mean(),
            "best_auc": roc_auc_score(labels, true),
        }
        for metric, value in expected.items():
            assert by_metric[cohort, metric]["value"] == pytest.approx(value), (cohort, metric)
            assert by_metric[cohort, metric]["n"] == part.height
    assert len(by_metric) == 5 * 8


@dataclass(kw_only=True, slots=True)
class Misjudged(Binary):
    @property
    def metrics(self) -> tuple[str, ...]:
        return "auc", "xauc", "made_up"


def test_a_head_is_judged_by_metrics_of_what_it_gives() -> None:
    assert unknown_metrics(Binary()) == unknown_metrics(Regression()) == unknown_metrics(Ordinal(levels=3)) == []
    assert unknown_metrics(Misjudged()) == ["xauc", "made_up"]
    with pytest.raises(UserError, match="tasks.like: .* is judged by 'xauc', which is no metric of it"):
        validate(replace(sample_base(), tasks={"like": Misjudged()}))


def test_evaluate_predictions_uses_the_thresholds_and_says_none_for_empty_cohorts() -> None:
    frame = predictions().with_columns(user_views=pl.lit(3))
    rows = evaluate_predictions(frame, {"like": Binary()}, CohortConfig(new_user_max_views=2))
    empty = [row for row in rows if row["cohort"] == "new_user"]
    assert {row["metric"] for row in empty} >= {"auc", "auc_fixed_avc", "gauc", "ne", "logloss"}
    assert all(row["value"] is None and row["n"] == 0 for row in empty)


def test_evaluate_predictions_names_what_is_wrong() -> None:
    frame = predictions(20)
    bad = frame.with_row_index().with_columns(
        prob_like=pl.when(pl.col("index") == 7).then(float("nan")).otherwise("prob_like")
    )
    with pytest.raises(UserError, match="prob_like is nan at row 7"):
        evaluate_predictions(bad, {"like": Binary()})
    with pytest.raises(UserError, match="no column label_follow"):
        evaluate_predictions(frame, {"follow": Binary()})
    with pytest.raises(UserError, match="label_like is 2 at row 0"):
        evaluate_predictions(frame.with_columns(label_like=pl.lit(2)), {"like": Binary()})
    with pytest.raises(UserError, match="user_views is Int32 with 20 nulls"):
        evaluate_predictions(frame.with_columns(user_views=pl.lit(None, dtype=pl.Int32)), {"like": Binary()})
