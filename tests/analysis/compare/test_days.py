"""The t-test over days, and which day a row is of."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from compared import DAY_MS, compare_scores, compared, scores_of, shared_rows, write_run
from scipy import stats

from coldrank.analysis.compare.days import find_days, t_test
from coldrank.analysis.compare.resample import measure, resample_users
from coldrank.analysis.compare.rows import METRICS
from coldrank.data.cohorts import CohortConfig
from coldrank.metrics import by_cohort as metrics


def test_figures_of_a_day_are_those_of_its_rows() -> None:
    rng = np.random.default_rng(0)
    rows, odds = shared_rows(rng, users=20, rows=600)
    labels = rows.labels["like"].copy()
    labels[rows.times < DAY_MS] = 0  # a day without a class
    labels[rng.random(600) < 0.1] = -1
    scores = np.round(scores_of(rng, odds, 1.0, 0.0), 2)
    days = find_days([], rows)
    resampling = resample_users(rows, CohortConfig(), resamples=2, seed=0)
    assert days.names == tuple(f"1970-01-0{day}" for day in range(1, 6)) and days.source == "UTC"
    daily = measure(labels, scores, resampling, days).days
    for cohort, mask in resampling.cohorts.items():
        for day in range(5):
            use = mask & (rows.times // DAY_MS == day)
            y, s = labels[use], scores[use]
            expected = [
                metrics.auc(y, s),
                metrics.auc_fixed_avc(y, s, rows.user_views[use]),
                metrics.ne(y, s),
                metrics.gauc(y, s, rows.users[use]),
            ]
            assert daily[cohort][:, day] == pytest.approx(expected, nan_ok=True), (cohort, day)
            assert np.isnan(daily[cohort][:, day]).all() == (day == 0)


def test_t_test_is_student_s_over_the_days_with_a_value() -> None:
    rng = np.random.default_rng(1)
    base, arm = rng.normal(0, 1, 9), rng.normal(0.5, 1, 9)
    expected = stats.ttest_rel(arm, base).pvalue
    count, p = t_test(np.append(arm - base, np.nan))
    assert count == 9 and p == pytest.approx(expected, rel=1e-6)
    assert t_test(np.array([0.3, np.nan])) == (1, None)
    assert t_test(np.zeros(3)) == (3, 1.0)


def test_row_holds_the_difference_of_each_day_over_the_seeds() -> None:
    rng = np.random.default_rng(2)
    rows, odds = shared_rows(rng, users=30, rows=900)
    labels, days = rows.labels["like"], find_days([], rows)
    resampling = resample_users(rows, CohortConfig(), resamples=20, seed=0)
    base, variant = ([scores_of(rng, odds, noise, 0.0) for _ in range(2)] for noise in (2.0, 1.0))
    row = compare_scores(labels, resampling, base, variant, days)["all", "auc"]
    on = [days.day == day for day in range(5)]
    aucs = [[np.mean([metrics.auc(labels[d], s[d]) for s in arm]) for d in on] for arm in (variant, base)]
    assert row.daily == pytest.approx(100 * np.subtract(*aucs), abs=1e-4)
    assert row.days == 5 and row.days_p == pytest.approx(stats.ttest_rel(*aucs).pvalue, rel=1e-6)


def write_data(folder: Path, frame: pl.DataFrame, periods: dict[str, Any]) -> None:
    """A prepared folder: the rows of `frame` by period, a mask each; and other rows, of another split."""
    partitions = []
    for number, (period, mask) in enumerate(periods.items()):
        of_period = frame.filter(mask).select("user_id", "item_id", "time")
        of_period.write_parquet(folder / f"{number}.parquet")
        about = {"rows": of_period.height, "time_min": of_period["time"].min(), "time_max": of_period["time"].max()}
        partitions.append({"path": f"{number}.parquet", "split": "test", "period": period} | about)
    frame.select("user_id", "item_id", "time").write_parquet(folder / "other.parquet")
    other = {"path": "other.parquet", "split": "valid", "period": "2001-01-01", "rows": 9, "time_min": 0, "time_max": 9}
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "columns": [], "partitions": [other, *partitions]}))


def test_days_are_those_of_the_prepared_data(tmp_path: Path) -> None:
    frames = [write_run(tmp_path / name, name, 1, shift=1.0) for name in ("base", "poso")]
    (tmp_path / "base" / "run.json").write_text(json.dumps({"data_path": str(tmp_path)}))
    early = pl.col("time") % 3 == 0  # the log's own days need not be intervals of time
    cases = {
        "data": {"2022-05-04": early, "2022-05-05": ~early},
        "UTC": {"2022-05": pl.col("time") >= 0},
        "UTC too": {"2022-05-04": early},
    }
    for source, periods in cases.items():
        write_data(tmp_path, frames[0], periods)
        comparison = compared(tmp_path / "base", tmp_path / "poso")
        row = next(r for r in comparison.rows if (r.arm, r.metric, r.cohort) == ("poso", "auc", "all"))
        assert comparison.day_source == source.split()[0]
        assert comparison.days == (("2022-05-04", "2022-05-05") if source == "data" else ("1970-01-01",))
        assert row.days == len(row.daily) == len(comparison.days)
        assert (row.days_p is None) == (source != "data")


def test_every_metric_has_a_figure_per_day() -> None:
    rows, odds = shared_rows(np.random.default_rng(3), users=20, rows=300)
    resampling = resample_users(rows, CohortConfig(), resamples=2, seed=0)
    figures = measure(rows.labels["like"], 1 / (1 + np.exp(-odds)), resampling, find_days([], rows))
    assert all(daily.shape == (len(METRICS), 5) for daily in figures.days.values())
