"""Paired comparison: coverage by simulation, figures against the metrics, refusals, the command."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from coldrank.train import metrics
from coldrank.train.compare import METRICS, Row, Sample, contrast, contrast_task, make_sample, resample, t_point
from coldrank.train.compare_cli import add_compare
from coldrank.train.compare_runs import SharedRows
from coldrank.train.compare_table import format_overview
from coldrank.train.errors import UserError
from coldrank.train.mann_whitney import FloatArray, IntArray, Numbers
from coldrank.train.metrics import CohortConfig


def shared_rows(rng: np.random.Generator, users: int, rows: int) -> tuple[SharedRows, FloatArray]:
    """Rows and their log odds; users differ in their rate and in how many rows they have."""
    user = rng.choice(users, rows, p=rng.dirichlet(np.ones(users)))
    odds = rng.normal(0, 1, users)[user] + rng.normal(0, 1, rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int8)
    views = rng.integers(0, 30, rows)
    return SharedRows(users=user * 10**9, user_views=views, item_views=views * 4, labels={"like": labels}), odds


def scores_of(rng: np.random.Generator, odds: FloatArray, noise: float, seed_noise: float) -> Numbers:
    """A model's probabilities: true log odds with noise per row, whose size varies with the seed."""
    scale = noise * np.exp(seed_noise * rng.normal())
    return np.asarray(1 / (1 + np.exp(-(odds + scale * rng.normal(size=len(odds))))))


def compare_scores(
    labels: IntArray, sample: Sample, base: Sequence[Numbers], variant: Sequence[Numbers]
) -> dict[tuple[str, str], Row]:
    """(cohort, metric) -> the row of the variant."""
    resampled = {
        arm: {seed: resample(labels, scores, sample) for seed, scores in enumerate(runs)}
        for arm, runs in (("base", base), ("variant", variant))
    }
    rows = contrast_task("like", labels, resampled, "base", sample)
    return {(row.cohort, row.metric): row for row in rows if row.arm == "variant"}


@pytest.mark.slow
def test_interval_covers_no_difference_and_finds_a_planted_one() -> None:
    rng = np.random.default_rng(0)
    trials, covered, found = 60, dict.fromkeys(METRICS, 0), 0
    for _ in range(trials):
        rows, odds = shared_rows(rng, users=60, rows=300)
        whole = make_sample(rows, CohortConfig(), resamples=30, seed=int(rng.integers(2**31)))
        sample = replace(whole, cohorts={"all": whole.cohorts["all"]})
        draw = [[scores_of(rng, odds, noise, 0.2) for _ in range(3)] for noise in (1.5, 1.5, 0.2)]
        equal = compare_scores(rows.labels["like"], sample, draw[0], draw[1])
        better = compare_scores(rows.labels["like"], sample, draw[0], draw[2])
        for metric in METRICS:
            covered[metric] += equal["all", metric].verdict == "not distinguishable"
        found += better["all", "auc"].verdict == "better"
    assert all(count >= 0.85 * trials for count in covered.values()), covered
    assert found >= 0.6 * trials, found


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(
    ("main", "both", "user"),
    [(0.0, 1.0, 0.0), (0.0, 1.0, 1.0), (0.2, 1.0, 0.0), (1.0, 0.1, 0.1), (0.0, 0.0, 1.0)],
    ids=["both", "users and both", "seeds and both", "seeds", "users"],
)
def test_interval_covers_whatever_varies(paired: bool, main: float, both: float, user: float) -> None:
    rng = np.random.default_rng(0)
    seeds, users, trials, covered, half, differences = 5, 100, 300, 0, [], []
    for _ in range(trials):
        weights = np.concatenate([np.ones((1, users)), rng.multinomial(users, np.full(users, 1 / users), size=60)])

        def arm(weights: FloatArray = weights) -> FloatArray:
            per_user = rng.normal(0, user, users) + rng.normal(0, both, (seeds, users))
            return np.asarray(rng.normal(0, main, (seeds, 1)) + per_user @ weights.T / users)

        interval = contrast(arm(), arm(), users, paired=paired)
        assert interval is not None
        covered += interval.low <= 0 <= interval.high
        half.append(interval.high - interval.difference)
        differences.append(interval.difference)
    assert 0.91 <= covered / trials <= 0.99
    # Student's t at 4 degrees of freedom is 1.4 times the normal point: no interval should be much wider than that.
    assert np.median(half) < 1.6 * 1.96 * np.std(differences)


def test_means_and_differences_are_those_of_the_metrics() -> None:
    rng = np.random.default_rng(1)
    rows, odds = shared_rows(rng, users=40, rows=800)
    labels = rows.labels["like"].copy()
    labels[rng.random(800) < 0.2] = -1
    sample = make_sample(rows, CohortConfig(), resamples=20, seed=0)
    base, variant = ([scores_of(rng, odds, noise, 0.0).astype(np.float32) for _ in range(3)] for noise in (2.0, 1.0))
    found = compare_scores(labels, sample, base, variant)
    for cohort, mask in sample.cohorts.items():

        def value(metric: str, scores: Numbers, mask: Numbers = mask) -> float:
            extra = {"gauc": [rows.users[mask]], "auc_fixed_avc": [rows.user_views[mask]]}.get(metric, [])
            return float(getattr(metrics, metric)(labels[mask], scores[mask], *extra))

        for metric in METRICS:
            row = found[cohort, metric]
            mean = np.mean([value(metric, scores) for scores in variant])
            assert row.mean == pytest.approx(100 * mean), (cohort, metric)
            assert row.difference == pytest.approx(100 * (mean - np.mean([value(metric, s) for s in base])))
            assert row.n == np.count_nonzero(mask & (labels >= 0))


def test_a_draw_of_users_weighs_like_repeated_rows() -> None:
    rng = np.random.default_rng(2)
    rows, odds = shared_rows(rng, users=30, rows=600)
    labels, scores = rows.labels["like"], np.round(scores_of(rng, odds, 1.0, 0.0), 2)
    sample = make_sample(rows, CohortConfig(), resamples=3, seed=5)
    assert (sample.draws.sum(axis=1) == len(np.unique(rows.users))).all()
    found = resample(labels, scores, sample)
    for draw in range(4):
        for cohort, mask in sample.cohorts.items():
            repeat = np.repeat(np.arange(600), np.where(mask, sample.draws[draw][sample.users], 0))
            y, s = labels[repeat], scores[repeat]
            expected = [
                metrics.auc(y, s),
                metrics.auc_fixed_avc(y, s, rows.user_views[repeat]),
                metrics.ne(y, s),
                metrics.gauc(y, s, rows.users[repeat]),
            ]
            assert found[cohort][:, draw] == pytest.approx(expected, nan_ok=True)


def test_equal_runs_have_no_difference_and_one_seed_has_no_seed_spread() -> None:
    rng = np.random.default_rng(3)
    rows, odds = shared_rows(rng, users=30, rows=300)
    sample = make_sample(rows, CohortConfig(), resamples=20, seed=0)
    scores = scores_of(rng, odds, 1.0, 0.0)
    row = compare_scores(rows.labels["like"], sample, [scores], [scores])["all", "auc"]
    assert (row.difference, row.low, row.high, row.user_spread, row.seed_spread) == (0, 0, 0, 0, None)
    assert row.verdict == "not distinguishable"


def test_a_cohort_without_a_class_has_no_value() -> None:
    rng = np.random.default_rng(4)
    rows, odds = shared_rows(rng, users=30, rows=300)
    labels = np.where(rows.user_views <= 10, 0, rows.labels["like"]).astype(np.int8)
    sample = make_sample(rows, CohortConfig(), resamples=20, seed=0)
    scores = [scores_of(rng, odds, 1.0, 0.0) for _ in range(2)]
    row = compare_scores(labels, sample, scores, scores)["new_user", "auc"]
    assert (row.mean, row.difference, row.verdict) == (None, None, "no value")


def test_seed_spread_is_the_standard_error_over_seeds() -> None:
    rng = np.random.default_rng(5)
    arm = 0.8 + np.repeat(rng.normal(0, 0.01, (5, 1)), 21, axis=1)
    baseline = 0.7 + np.repeat(rng.normal(0, 0.02, (4, 1)), 21, axis=1)
    expected = np.sqrt(arm[:, 0].var(ddof=1) / 5 + baseline[:, 0].var(ddof=1) / 4)
    interval = contrast(arm, baseline, users=100, paired=False)
    assert interval is not None and interval.seed_spread == pytest.approx(expected)
    assert interval.user_spread == pytest.approx(0, abs=1e-12)
    welch = stats.ttest_ind(arm[:, 0], baseline[:, 0], equal_var=False).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((welch.low, welch.high), abs=0.01 * (welch.high - welch.low))


@pytest.mark.parametrize("freedom", [1, 2, 2.5, 3.7, 7, 12, 50, 1e9])
def test_t_point_is_the_quantile(freedom: float) -> None:
    assert t_point(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.03)


def write_run(
    folder: Path, name: str, seed: int, tasks: Sequence[str] = ("like",), rows: int = 400, shift: float = 0.0
) -> pl.DataFrame:
    """A run folder as `coldrank train` leaves it; the same rows for every run, scores by name and seed."""
    rng = np.random.default_rng(0)
    frame = {
        "user_id": np.sort(rng.integers(0, 40, rows)),
        "item_id": rng.integers(0, 99, rows),
        "time": np.arange(rows),
        "user_views": rng.integers(0, 30, rows).astype(np.int32),
        "item_views": rng.integers(0, 120, rows).astype(np.int32),
    }
    noise = np.random.default_rng([seed, len(name)])
    for task in tasks:
        odds = rng.normal(size=rows)
        label = rng.random(rows) < 1 / (1 + np.exp(-odds))
        frame |= {f"label_{task}": label.astype(np.int8)}
        frame |= {f"prob_{task}": (1 / (1 + np.exp(-odds - shift * noise.normal(size=rows)))).astype(np.float32)}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"name": name, "seed": seed, "train": {"steps": 1}}))
    table = pl.DataFrame(frame)
    table.write_parquet(folder / "predictions-test.parquet")
    return table


def run_command(*arguments: str | Path) -> None:
    parser = argparse.ArgumentParser()
    add_compare(parser.add_subparsers())
    args = parser.parse_args(["compare", *map(str, arguments), "--resamples", "20"])
    args.run(args)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """base and poso with three seeds each, and a foreign run of one seed without one of the tasks."""
    for seed in (1, 2, 3):
        write_run(tmp_path / f"base-{seed}", "base", seed, ("like", "follow"), shift=3.0)
        write_run(tmp_path / f"poso-{seed}", "poso", seed, ("like", "follow"))
    foreign = write_run(tmp_path / "trees", "lightgbm", 0, ("like",), shift=0.5)
    foreign = foreign.with_columns(pl.col("prob_like").cast(pl.Float64), pl.col("label_like").cast(pl.Float64))
    foreign.select(reversed(foreign.columns)).write_parquet(tmp_path / "trees" / "predictions-test.parquet")
    (tmp_path / "trees" / "config.json").write_text('{"name": "lightgbm", "seed": 0}')
    return tmp_path


def test_command_writes_and_prints_the_comparison(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [runs / name for name in ("poso-1", "base-1", "poso-2", "base-2", "base-3", "poso-3", "trees")]
    run_command(*folders, "--out", runs / "new" / "out")
    printed = capsys.readouterr().out
    tables = printed.partition("First arm")[0]
    assert max(map(len, tables.splitlines())) <= 100
    assert all(cohort in printed for cohort in ("all", "new_user", "regular_user", "new_item", "regular_item"))
    assert f"Task follow is left out: not predicted by {runs / 'trees'}." in printed
    assert "poso against base, AUC: better in all/like" in printed
    content = json.loads((runs / "new" / "out" / "compare.json").read_text())
    assert content["baseline"] == "base" and len(content["runs"]) == 7
    assert {row["arm"]: row["seeds"] for row in content["rows"]} == {"base": 3, "poso": 3, "lightgbm": 1}
    assert len(content["rows"]) == 5 * len(METRICS) * 3
    poso = next(row for row in content["rows"] if row["arm"] == "poso" and row["cohort"] == "all")
    assert poso["verdict"] == "better" and poso["low"] > 0 and poso["seed_spread"] > 0
    assert format_overview([Row(**row) for row in content["rows"]]) in printed
    assert "| seed spread" in (runs / "new" / "out" / "compare.md").read_text()
    assert [path.name for path in (runs / "new").iterdir()] == ["out"]


def test_command_repeats_itself(runs: Path) -> None:
    for out in ("a", "b"):
        run_command(runs / "base-1", runs / "poso-1", "--out", runs / out)
    assert (runs / "a" / "compare.json").read_text() == (runs / "b" / "compare.json").read_text()


def test_baseline_is_an_arm_or_a_run(runs: Path) -> None:
    for out, baseline in (("a", "poso"), ("b", str(runs / "poso-1"))):
        run_command(runs / "base-1", runs / "poso-1", "--baseline", baseline, "--out", runs / out)
        assert json.loads((runs / out / "compare.json").read_text())["baseline"] == "poso"
    run_command(runs / "base-1", "--baseline", runs / "poso-1", "--out", runs / "c")
    assert len(json.loads((runs / "c" / "compare.json").read_text())["runs"]) == 2


def test_cohort_thresholds_come_from_the_configs(runs: Path) -> None:
    config = {"name": "base", "seed": 1, "cohorts": {"new_user_max_views": 3, "new_item_max_views": 50}}
    (runs / "base-1" / "config.json").write_text(json.dumps(config))
    run_command(runs / "base-1", runs / "poso-1", "--out", runs / "out")
    rows = json.loads((runs / "out" / "compare.json").read_text())["rows"]
    views = pl.read_parquet(runs / "base-1" / "predictions-test.parquet")["user_views"]
    assert {row["n"] for row in rows if row["cohort"] == "new_user"} == {(views <= 3).sum()}
    (runs / "poso-1" / "config.json").write_text(json.dumps({"name": "poso", "seed": 1, "cohorts": {"new": 3}}))
    with pytest.raises(UserError, match="expected whole numbers for new_user_max_views, new_item_max_views"):
        run_command(runs / "base-1", runs / "poso-1", "--out", runs / "out2")


def test_runs_of_other_rows_are_refused(runs: Path) -> None:
    path = runs / "poso-1" / "predictions-test.parquet"
    frame = pl.read_parquet(path)
    changed = frame.with_row_index().with_columns(
        item_id=pl.when(pl.col("index") == 12).then(7777).otherwise("item_id")
    )
    cases = {
        "row 12: item_id is .* but 7777 in .*poso-1": changed.drop("index"),
        "has 400 rows, .* 399": frame.head(399),
        "row .*: label_like is . in": frame.with_columns(label_like=(1 - pl.col("label_like")).cast(pl.Int8)),
        "no column time": frame.drop("time"),
        "no column prob_<task>": frame.drop("prob_like", "prob_follow"),
        "no column label_like": frame.drop("label_like"),
        "prob_like is 1.5 at row 0": frame.with_columns(prob_like=pl.lit(1.5)),
    }
    for message, table in cases.items():
        table.write_parquet(path)
        with pytest.raises(UserError, match=message):
            run_command(runs / "base-1", runs / "poso-1", "--out", runs / "out")
    path.write_bytes(b"no Parquet")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        run_command(runs / "base-1", runs / "poso-1", "--out", runs / "out")
    assert not (runs / "out").exists()


def test_mistakes_are_named(runs: Path) -> None:
    base, poso = runs / "base-1", runs / "poso-1"
    with pytest.raises(UserError, match="neither a run folder nor one of the arms base, poso"):
        run_command(base, poso, "--baseline", "bse", "--out", runs / "out")
    with pytest.raises(UserError, match="all runs are of arm base"):
        run_command(base, runs / "base-2", "--out", runs / "out")
    with pytest.raises(UserError, match="both arm base, seed 1"):
        run_command(base, base, poso, "--out", runs / "out")
    with pytest.raises(UserError, match="exists already"):
        run_command(base, poso, "--out", base)
    with pytest.raises(UserError, match="predictions-valid.parquet: no such file; write it with `coldrank evaluate"):
        run_command(base, poso, "--split", "valid", "--out", runs / "out")
    with pytest.raises(UserError, match="config.json: No such file or directory"):
        run_command(base, runs / "nothing", "--out", runs / "out")
    for content, message in (
        ('{"name": "poso"}', "seed is None"),
        ('{"seed": 1}', "name is None"),
        ("[", "not JSON"),
        ("[]", "expected an object"),
    ):
        (poso / "config.json").write_text(content)
        with pytest.raises(UserError, match=message):
            run_command(base, poso, "--out", runs / "out")
