"""Tasks of numbers in a comparison: their figures against the metrics, their intervals against repeated rows."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from compared import compared, run_command, shared_rows, write_run

from coldrank.analysis.compare.days import find_days
from coldrank.analysis.compare.numbers import measure_numbers
from coldrank.analysis.compare.resample import resample_users
from coldrank.analysis.compare.rows import NUMBER_METRICS, Row
from coldrank.data.cohorts import CohortConfig
from coldrank.data.errors import UserError
from coldrank.metrics import values
from coldrank.metrics.mann_whitney import FloatArray

EACH = (values.xauc, values.mae, values.calibration)


def seconds(rng: np.random.Generator, odds: FloatArray, noise: float) -> FloatArray:
    """Predictions of seconds whose logarithm is off by some noise."""
    return np.asarray(np.exp(odds + noise * rng.normal(size=len(odds))))


def test_figures_are_the_metrics_of_each_cohort_and_day() -> None:
    rng = np.random.default_rng(3)
    rows, odds = shared_rows(rng, users=40, rows=800)
    labels = np.where(rng.random(800) < 0.2, np.nan, np.round(seconds(rng, odds, 0.5), 1))
    predictions = seconds(rng, odds, 1.0)
    days = find_days([], rows)
    found = measure_numbers(labels, predictions, resample_users(rows, CohortConfig(), 20, 0), days)
    for cohort, mask in resample_users(rows, CohortConfig(), 20, 0).cohorts.items():
        known = mask & ~np.isnan(labels)
        whole = [metric(labels[known], predictions[known]) for metric in EACH]
        np.testing.assert_allclose(found.draws[cohort][:, 0], whole, rtol=1e-12)
        for day in range(len(days.names)):
            some = known & (days.day == day)
            wanted = [metric(labels[some], predictions[some]) for metric in EACH]
            np.testing.assert_allclose(found.days[cohort][:, day], wanted, rtol=1e-12)


def test_a_draw_of_users_weighs_like_repeated_rows() -> None:
    """MAE and calibration exactly; of XAUC the linear part, which has the spread of the whole."""
    rng = np.random.default_rng(4)
    rows, odds = shared_rows(rng, users=150, rows=1200)
    labels, predictions = seconds(rng, odds, 0.7), seconds(rng, odds, 1.0)
    resampling = resample_users(rows, CohortConfig(), resamples=200, seed=5)
    drawn = measure_numbers(labels, predictions, resampling).draws["all"]
    exact = np.empty_like(drawn)
    for draw, weights in enumerate(resampling.draws):
        repeat = np.repeat(np.arange(1200), weights[resampling.users])
        exact[:, draw] = [metric(labels[repeat], predictions[repeat]) for metric in EACH]
    np.testing.assert_allclose(drawn[1:], exact[1:], rtol=1e-10)
    assert drawn[0, 1:].std() == pytest.approx(exact[0, 1:].std(), rel=0.1)
    assert np.corrcoef(drawn[0, 1:], exact[0, 1:])[0, 1] > 0.98


def write_numbers(folder: Path, name: str, seed: int, noise: float, **columns: pl.Expr) -> None:
    """A run with a probability and seconds, a tenth of these unknown."""
    frame = write_run(folder, name, seed, shift=noise)
    odds, rng = np.random.default_rng(1).normal(size=len(frame)), np.random.default_rng([seed, len(name)])
    truth = np.where(np.arange(len(frame)) % 10 == 3, np.nan, np.exp(odds))
    frame = frame.with_columns(
        label_watch_s=pl.Series(truth, dtype=pl.Float32).fill_nan(None),
        pred_watch_s=pl.Series(seconds(rng, odds, noise), dtype=pl.Float32),
    )
    frame.with_columns(**columns).write_parquet(folder / "predictions-test.parquet")


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    for name, noise in {"base": 1.5, "poso": 0.3}.items():
        for seed in (1, 2, 3):
            write_numbers(tmp_path / f"{name}-{seed}", name, seed, noise)
    return sorted(tmp_path.iterdir())


def of(rows: Sequence[Row], arm: str, metric: str) -> Row:
    (row,) = [r for r in rows if (r.arm, r.metric, r.task, r.cohort) == (arm, metric, "watch_s", "all")]
    return row


@pytest.mark.tried("configs and runs", "compare: a task of numbers", "XAUC, MAE and calibration with their intervals")
def test_a_task_of_numbers_is_compared_beside_a_probability(runs: list[Path]) -> None:
    found = compared(*runs, baseline="base")
    assert {row.task for row in found.rows} == {"like", "watch_s"} and not found.notes
    assert {row.metric for row in found.rows if row.task == "watch_s"} == set(NUMBER_METRICS)
    frames = [pl.read_parquet(folder / "predictions-test.parquet").drop_nulls("label_watch_s") for folder in runs]
    errors = [(f["label_watch_s"] - f["pred_watch_s"]).abs().mean() for f in frames]
    mae, xauc, calibration = (of(found.rows, "poso", metric) for metric in ("mae", "xauc", "calibration"))
    assert mae.difference == pytest.approx(np.mean(errors[3:]) - np.mean(errors[:3]), rel=1e-5), "seconds"
    assert mae.mean == pytest.approx(np.mean(errors[3:]), rel=1e-5) and mae.verdict == "better" and mae.high < 0
    assert xauc.verdict == "better" and xauc.low > 0 and 50 < xauc.mean < 100 and xauc.n == 360
    assert calibration.verdict == "not judged" and calibration.p is calibration.p_corrected is None
    assert calibration.low < calibration.difference < calibration.high and calibration.mean == pytest.approx(105, abs=5)


def test_the_command_shows_and_writes_them(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    out = runs[0].parent / "out"
    run_command(*runs, "--out", out)
    printed = capsys.readouterr().out
    assert max(map(len, printed.partition("First arm")[0].splitlines())) <= 100
    assert "\nXAUC\n" in printed and "MAE in the label's own unit, lower is better" in printed
    assert "poso against base, AUC: " in printed and "poso against base, XAUC: better in all/watch_s" in printed
    content = json.loads((out / "compare.json").read_text())
    assert content["other_units"] == {"mae": "the label's"}
    page = (out / "compare.md").read_text()
    assert " MAE |" in page and "| not judged" in page
    report = (out / "report.html").read_text()
    assert "XAUC" in report and "(of numbers: XAUC)" in report and "not judged" in report


def test_numbers_alone_are_compared(runs: list[Path]) -> None:
    for folder in runs:
        path = folder / "predictions-test.parquet"
        pl.read_parquet(path).drop("label_like", "prob_like").write_parquet(path)
    run_command(*runs, "--out", runs[0].parent / "out")
    content = json.loads((runs[0].parent / "out" / "compare.json").read_text())
    assert {row["metric"] for row in content["rows"]} == set(NUMBER_METRICS)


@pytest.mark.tried("configs and runs", "compare: a number in one run, a probability in another", "left out, and named")
def test_a_number_is_not_held_against_a_probability(tmp_path: Path) -> None:
    write_numbers(tmp_path / "base", "base", 1, 1.0)
    write_numbers(tmp_path / "poso", "poso", 1, 1.0)
    path = tmp_path / "poso" / "predictions-test.parquet"
    frame = pl.read_parquet(path).with_columns(
        label_watch_s=(pl.col("label_watch_s") > 1).cast(pl.Int8), pred_watch_s=pl.lit(0.5)
    )
    frame.rename({"pred_watch_s": "prob_watch_s"}).write_parquet(path)
    found = compared(tmp_path / "base", tmp_path / "poso", baseline="base")
    assert {row.task for row in found.rows} == {"like"}
    assert f"Task watch_s is left out: a number, not a probability, in {tmp_path / 'base'}." in found.notes


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"pred_watch_s": pl.lit(2.5)}, "every pred_watch_s is 2.5"),
        (
            {"pred_watch_s": pl.when(pl.col("time") == 7).then(float("inf")).otherwise("pred_watch_s")},
            "pred_watch_s is inf at row 7",
        ),
    ],
)
def test_a_run_whose_numbers_say_nothing_has_failed(columns: dict[str, pl.Expr], reason: str, tmp_path: Path) -> None:
    for name, changed in {"base": {}, "poso": {}, "flat": columns}.items():
        write_numbers(tmp_path / name, name, 1, 1.0, **changed)
    found = compared(*(tmp_path / n for n in ("base", "poso", "flat")), baseline="base")
    assert f"Failed, and left out: {tmp_path / 'flat'} ({reason})." in found.notes
    assert {row.arm for row in found.rows} == {"base", "poso"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label_watch_s": pl.col("label_watch_s") + 1}, "row 0: label_watch_s is .* in .*compare runs scored on the"),
        ({"label_watch_s": pl.col("label_watch_s").fill_null(1.0)}, "row 3: label_watch_s is nan in .* but 1.0 in"),
        ({"label_watch_s": pl.lit("x")}, "column label_watch_s is String; expected numbers"),
        ({"pred_watch_s": pl.lit("x")}, "column pred_watch_s is String; expected numbers"),
    ],
)
def test_numbers_that_cannot_be_compared_are_named(columns: dict[str, pl.Expr], message: str, tmp_path: Path) -> None:
    write_numbers(tmp_path / "base", "base", 1, 1.0)
    write_numbers(tmp_path / "poso", "poso", 1, 1.0, **columns)
    with pytest.raises(UserError, match=message):
        compared(tmp_path / "base", tmp_path / "poso", baseline="base")
