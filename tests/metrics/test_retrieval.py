"""Retrieval metrics against a naive count over users."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from coldrank.metrics.retrieval import Met, RetrievalConfig, judge, mean_over_periods

CONFIG = RetrievalConfig(ks=(1, 3), batch=16, users=4, cold=(2, 9), most=1000)


@pytest.fixture
def period(tmp_path):
    """40 rows in order of time of 7 users and 12 items; the user vectors of three tasks."""
    rng = np.random.default_rng(0)
    n = 40
    frame = pl.DataFrame(
        {
            "user_id": rng.integers(100, 107, n),
            "item_id": rng.integers(0, 12, n) * 10,
            "item_views": rng.integers(0, 20, n).astype(np.int32),
            "label_click": pl.Series(rng.choice([0, 1, None], n, p=[0.3, 0.6, 0.1]).tolist(), dtype=pl.Int8),
            "item_vector": rng.normal(size=(n, 3)).astype(np.float32),
            "user_vectors": rng.normal(size=(n, 9)).astype(np.float32),
            "route": rng.integers(0, 3, n),
        }
    )
    half = frame.select("user_id", "item_id")[:20]
    half.write_parquet(tmp_path / "a.parquet")
    frame.select("user_id", "item_id")[20:].write_parquet(tmp_path / "b.parquet")
    return frame, Met([tmp_path / "a.parquet", tmp_path / "b.parquet"])


def value(rows, cohort, metric):
    return next((r["value"], r["n"]) for r in rows if r["cohort"] == cohort and r["metric"] == metric)


def naive(frame, candidates_of):
    """Rank of every positive's user among the rows that `candidates_of(row)` names, of users who never met the item."""
    rows = frame.to_dicts()
    met = {(r["user_id"], r["item_id"]) for r in rows}
    score = lambda item, user: np.dot(item["item_vector"], user["user_vectors"][3 * item["route"] :][:3])
    ranks = {}
    for i, row in enumerate(rows):
        if row["label_click"] != 1:
            continue
        others = [rows[j] for j in candidates_of(i, rows) if (rows[j]["user_id"], row["item_id"]) not in met]
        ranks[i] = (sum(score(row, o) > score(row, row) for o in others), len(others) + 1)
    return ranks


def last_row_of_each_user(i, rows):
    for user in {r["user_id"] for r in rows}:
        of_user = [j for j, r in enumerate(rows) if r["user_id"] == user]
        yield max((j for j in of_user if j <= i), default=of_user[0])


def check(rows, ranks, views, name):
    for cohort, low, high in (("cold_item", 2, 9), ("popular_item", 9, 99)):
        of_cohort = [r for i, r in ranks.items() if low < views[i] <= high]
        for k in CONFIG.ks:
            expected = np.mean([rank < k for rank, _ in of_cohort])
            assert value(rows, cohort, f"recall@{k}{name}") == (pytest.approx(expected), len(of_cohort))
            gain = np.mean([1 / np.log2(rank + 2) if rank < k else 0 for rank, _ in of_cohort])
            assert value(rows, cohort, f"ndcg@{k}{name}")[0] == pytest.approx(gain)
        assert value(rows, cohort, f"candidates{name}")[0] == pytest.approx(np.mean([c for _, c in of_cohort]))


@pytest.mark.parametrize("batch", [16, 3])
def test_among_the_users_of_the_batch(period, batch):
    frame, met = period
    rows = judge(frame, "click", replace(CONFIG, batch=batch), met, seed=1)
    inside = lambda i, rows: range(i // batch * batch, min(i // batch * batch + batch, 40))
    check(rows, naive(frame, inside), frame["item_views"], "")


def test_among_all_users(period):
    frame, met = period
    check(
        judge(frame, "click", CONFIG, met, seed=1), naive(frame, last_row_of_each_user), frame["item_views"], "_of_all"
    )


def test_among_so_many_users(period):
    frame, met = period
    rows = judge(frame, "click", CONFIG, met, seed=1)
    full = value(rows, "popular_item", "candidates_of_all")[0]
    few, n = value(rows, "popular_item", "candidates_of_4")
    assert few <= 5 and few <= full and n > 0
    assert value(rows, "popular_item", "recall@3_of_4")[0] >= value(rows, "popular_item", "recall@3_of_all")[0]
    assert rows == judge(frame, "click", CONFIG, met, seed=1)
    everyone = RetrievalConfig(ks=(1, 3), batch=16, users=99, cold=(2, 9))
    check(
        judge(frame, "click", everyone, met, seed=1), naive(frame, last_row_of_each_user), frame["item_views"], "_of_99"
    )


def test_without_vectors_of_tasks_all_routes_take_the_only_ones(period):
    frame, met = period
    single = frame.with_columns(user_vectors=pl.Series(frame["user_vectors"].to_numpy()[:, :3]))
    routed = judge(single, "click", CONFIG, met, seed=1)
    assert routed == judge(single.with_columns(route=0 * pl.col("route")), "click", CONFIG, met, seed=1)


def test_cohorts_part_by_the_views_of_the_item():
    cohorts = RetrievalConfig(cold=(2, 9)).cohorts(np.array([0, 2, 3, 9, 10]))
    assert {name: mask.tolist() for name, mask in cohorts.items()} == {
        "cold_item": [False, False, True, True, False],
        "popular_item": [False, False, False, False, True],
        "unseen_item": [True, True, False, False, False],
        "all": [True] * 5,
    }


def test_of_many_positives_so_many_are_drawn_by_the_seed(period):
    frame, met = period
    few = RetrievalConfig(ks=(1, 3), batch=16, users=4, cold=(2, 9), most=3)
    judged = [judge(frame, "click", few, met, seed=seed) for seed in (1, 1, 2, 3)]
    assert all(value(rows, "cold_item", "recall@1_of_all")[1] == 3 for rows in judged)
    assert value(judged[0], "cold_item", "recall@1")[1] > 3, "batches take all"
    assert judged[0] == judged[1] and judged[0] not in judged[2:]


def test_equal_scores_count_half(period):
    frame, met = period
    rows = frame.with_columns(item_vector=pl.lit(np.zeros((40, 3), np.float32)))
    judged = judge(rows, "click", RetrievalConfig(ks=(2, 4), batch=40, cold=(2, 9)), met, seed=1)
    ranks = naive(frame, last_row_of_each_user)
    cold = [(count - 1) / 2 for i, (_, count) in ranks.items() if 2 < frame["item_views"][i] <= 9]
    for k in (2, 4):
        assert value(judged, "cold_item", f"recall@{k}_of_all")[0] == pytest.approx(np.mean([r < k for r in cold]))


def test_a_score_that_tells_nothing_ranks_in_the_middle(period):
    frame, met = period
    frame = frame.with_columns(item_vector=pl.lit(np.zeros((40, 3), np.float32)))
    rows = judge(frame, "click", RetrievalConfig(ks=(4,), batch=40, cold=(2, 9)), met, seed=1)
    assert value(rows, "all", "recall@4")[0] < 1


def test_the_mean_over_periods_weighs_periods_alike():
    rows = [
        {"cohort": "cold_item", "task": "click", "metric": "recall@5", "value": v, "n": n}
        for v, n in ((0.2, 10), (0.4, 30), (None, 0))
    ] + [{"cohort": "all", "task": "click", "metric": "auc", "value": 0.7, "n": 3}]
    (mean,) = mean_over_periods(rows)
    assert mean["value"] == pytest.approx(0.3) and mean["n"] == 40
