"""The comparison: figures against the metrics, refusals of other rows, the command."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from compared import compare_scores, compared, run_command, scores_of, shared_rows, write_run

from coldrank.analysis.compare.compare import correct
from coldrank.analysis.compare.resample import measure, resample_users
from coldrank.analysis.compare.rows import METRICS, Row
from coldrank.analysis.compare.table import format_overview
from coldrank.cli.compare import add_compare
from coldrank.data.cohorts import CohortConfig
from coldrank.data.errors import UserError
from coldrank.metrics import by_cohort as metrics
from coldrank.metrics.mann_whitney import Numbers


def test_means_and_differences_are_those_of_the_metrics() -> None:
    rng = np.random.default_rng(1)
    rows, odds = shared_rows(rng, users=40, rows=800)
    labels = rows.labels["like"].copy()
    labels[rng.random(800) < 0.2] = -1
    resampling = resample_users(rows, CohortConfig(), resamples=20, seed=0)
    base, variant = ([scores_of(rng, odds, noise, 0.0).astype(np.float32) for _ in range(3)] for noise in (2.0, 1.0))
    compared_rows = compare_scores(labels, resampling, base, variant)
    for cohort, mask in resampling.cohorts.items():

        def value(metric: str, scores: Numbers, mask: Numbers = mask) -> float:
            extra = {"gauc": [rows.users[mask]], "auc_fixed_avc": [rows.user_views[mask]]}.get(metric, [])
            return float(getattr(metrics, metric)(labels[mask], scores[mask], *extra))

        for metric in METRICS:
            row = compared_rows[cohort, metric]
            mean = np.mean([value(metric, scores) for scores in variant])
            assert row.mean == pytest.approx(100 * mean), (cohort, metric)
            assert row.difference == pytest.approx(100 * (mean - np.mean([value(metric, s) for s in base])))
            assert row.n == np.count_nonzero(mask & (labels >= 0))


def test_a_draw_of_users_weighs_like_repeated_rows() -> None:
    rng = np.random.default_rng(2)
    rows, odds = shared_rows(rng, users=30, rows=600)
    labels, scores = rows.labels["like"], np.round(scores_of(rng, odds, 1.0, 0.0), 2)
    resampling = resample_users(rows, CohortConfig(), resamples=3, seed=5)
    assert (resampling.draws.sum(axis=1) == len(np.unique(rows.users))).all()
    drawn = measure(labels, scores, resampling).draws
    for draw in range(4):
        for cohort, mask in resampling.cohorts.items():
            repeat = np.repeat(np.arange(600), np.where(mask, resampling.draws[draw][resampling.users], 0))
            y, s = labels[repeat], scores[repeat]
            expected = [
                metrics.auc(y, s),
                metrics.auc_fixed_avc(y, s, rows.user_views[repeat]),
                metrics.ne(y, s),
                metrics.gauc(y, s, rows.users[repeat]),
            ]
            assert drawn[cohort][:, draw] == pytest.approx(expected, nan_ok=True)


def test_every_draw_is_of_as_many_users_with_replacement() -> None:
    rows, _ = shared_rows(np.random.default_rng(0), users=25, rows=400)
    resampling = resample_users(rows, CohortConfig(new_user_max_views=7, new_item_max_views=40), resamples=60, seed=3)
    count = len(np.unique(rows.users))
    assert resampling.draws.shape == (61, count) and (resampling.draws[0] == 1).all()
    assert (resampling.draws.sum(axis=1) == count).all()
    assert (
        all((draw != 1).any() for draw in resampling.draws[1:]) and len({d.tobytes() for d in resampling.draws}) == 61
    )
    assert resampling.draws[1:].mean(axis=0) == pytest.approx(1, abs=5 / 60**0.5)
    assert (resampling.draws[1:] == 0).mean() == pytest.approx((1 - 1 / count) ** count, abs=0.04)
    assert np.array_equal(resampling.users, np.unique(rows.users, return_inverse=True)[1])
    assert np.array_equal(resampling.avc, metrics.avc_groups(rows.user_views))
    assert np.array_equal(resampling.cohorts["new_user"], rows.user_views <= 7)
    assert np.array_equal(resampling.cohorts["new_item"], rows.item_views <= 40)
    other = resample_users(rows, CohortConfig(), resamples=60, seed=4)
    assert not np.array_equal(resampling.draws, other.draws)


def test_equal_runs_have_no_difference_and_one_seed_has_no_seed_spread() -> None:
    rng = np.random.default_rng(3)
    rows, odds = shared_rows(rng, users=30, rows=300)
    resampling = resample_users(rows, CohortConfig(), resamples=20, seed=0)
    scores = scores_of(rng, odds, 1.0, 0.0)
    row = compare_scores(rows.labels["like"], resampling, [scores], [scores])["all", "auc"]
    assert (row.difference, row.low, row.high, row.user_spread, row.seed_spread) == (0, 0, 0, 0, None)
    assert row.verdict == "not distinguishable"


def test_a_cohort_without_a_class_has_no_value() -> None:
    rng = np.random.default_rng(4)
    rows, odds = shared_rows(rng, users=30, rows=300)
    labels = np.where(rows.user_views <= 10, 0, rows.labels["like"]).astype(np.int8)
    resampling = resample_users(rows, CohortConfig(), resamples=20, seed=0)
    scores = [scores_of(rng, odds, 1.0, 0.0) for _ in range(2)]
    row = compare_scores(labels, resampling, scores, scores)["new_user", "auc"]
    assert (row.mean, row.difference, row.verdict) == (None, None, "no value")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """base and poso with three seeds each, and a foreign run of one seed without one of the tasks."""
    for seed in (1, 2, 3):
        write_run(tmp_path / f"base-{seed}", "base", seed, ("like", "follow"), shift=1.5)
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
    page = (runs / "new" / "out" / "compare.md").read_text()
    assert page.startswith("# Comparison with base on split test\n") and "| seed spread" in page
    assert [line for line in page.splitlines() if line.startswith("### ")] == [f"### {c}" for c in COHORTS]
    assert "over 1 days (UTC), each one sample" in page and "## All figures" in page
    assert [path.name for path in (runs / "new").iterdir()] == ["out"]


def tried(case: str) -> pytest.MarkDecorator:
    return pytest.mark.tried("configs and runs", case, "refused: what would be right; nothing is written")


COHORTS = ("all", "new_user", "regular_user", "new_item", "regular_item")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["--resamples", "19"], "--resamples 19: expected at least 20", marks=tried("compare --resamples 19")
        ),
        pytest.param(["--seed", "-1"], "--seed -1: expected 0 or more", marks=tried("compare --seed -1")),
        (["--data", "nowhere"], "--data nowhere: no manifest.json in it"),
    ],
)
def test_settings_of_the_command_are_checked(arguments: list[str], message: str, runs: Path) -> None:
    out = ["--out", runs / "out"] if "--out" not in arguments else []
    with pytest.raises(UserError, match=message):
        run_command(runs / "base-1", runs / "poso-1", *out, *arguments)
    assert not (runs / "out").exists()


def test_what_the_command_takes_where_nothing_is_said() -> None:
    parser = argparse.ArgumentParser()
    add_compare(parser.add_subparsers())
    args = vars(parser.parse_args(["compare", "a", "b", "--out", "o"]))
    assert args.pop("run").__name__ == "_compare"
    assert args == {
        "runs": [Path("a"), Path("b")],
        "baseline": None,
        "out": Path("o"),
        "split": "test",
        "resamples": 300,
        "seed": 0,
        "allow": [],
        "data": None,
    }


def test_the_command_needs_a_place_to_write(runs: Path) -> None:
    with pytest.raises(SystemExit):
        run_command(runs / "base-1", runs / "poso-1")


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
        "no column prob_<task> or pred_<task>": frame.drop("prob_like", "prob_follow"),
        "no column label_like": frame.drop("label_like"),
        "prob_like is 1.5 at row 0": frame.with_columns(prob_like=pl.lit(1.5)),
    }
    for message, table in cases.items():
        table.write_parquet(path)
        with pytest.raises(UserError, match=message):
            run_command(runs / "base-1", runs / "poso-1", "--out", runs / "out")
    path.write_bytes(b"no Parquet")
    with pytest.raises(UserError, match="poso-1/predictions-test.parquet: is not Parquet: it begins with b'no P'"):
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


def test_holm_s_family_is_an_arm_s_judging_metrics_over_all_tasks() -> None:
    def row(arm: str, task: str, metric: str, p: float) -> Row:
        return Row(
            task=task, cohort="all", metric=metric, arm=arm, seeds=2, n=9, users=9, mean=1.0, difference=0.1, p=p
        )

    rows = [
        row("poso", "like", "auc", 0.02),
        row("poso", "follow", "auc", 0.03),
        row("poso", "follow", "ne", 0.5),
        row("poso", "like", "gauc", 0.03),
        row("mwuf", "like", "auc", 0.03),
    ]
    # Of three: 3 x 0.02, then 2 x 0.03; alone: as it was.
    assert [r.p_corrected for r in correct(rows)] == pytest.approx([0.06, 0.06, 0.5, 0.03, 0.03])
    assert [r.verdict for r in correct(rows)] == ["not distinguishable"] * 3 + ["better"] * 2


def test_the_seed_of_the_draws_is_taken(runs: Path) -> None:
    ends = []
    for number, seed in enumerate((0, 0, 1)):
        out = runs / f"out-{number}"
        run_command(runs / "base-1", runs / "poso-1", "--seed", str(seed), "--out", out)
        rows = json.loads((out / "compare.json").read_text())["rows"]
        ends.append([(row["low"], row["high"]) for row in rows if row["low"] is not None])
    assert ends[0] == ends[1] and len(ends[0]) == len(ends[2]) > 10
    assert all(a != b for a, b in zip(ends[0], ends[2], strict=True))


@pytest.mark.tried("configs and runs", "compare: arms of one seed", "figures over users, and that seeds need more")
def test_one_seed_is_told(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(runs / "base-1", runs / "base-2", runs / "poso-1", "--out", runs / "out")
    said = capsys.readouterr().out
    assert "One seed: poso. What is known of them is the spread over users" in said and "nan" not in said
    assert "nan" not in (runs / "out/compare.md").read_text()
    run_command(*(runs / f"{arm}-{seed}" for arm in ("base", "poso") for seed in (1, 2)), "--out", runs / "two")
    assert "One seed" not in capsys.readouterr().out


@pytest.mark.tried(
    "configs and runs", "compare: a folder of runs in which an arm failed at its start", "the arm is named"
)
def test_arms_that_failed_at_their_start_are_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in {"base-1": "done", "wide.2-1": "coldrank train: no room\n", "deep-1": ""}.items():
        (runs / f"{name}.log").write_text(text)
    (runs / "deep-1").mkdir()
    run_command(runs, "--out", runs.parent / "out")
    notes = json.loads((runs.parent / "out/compare.json").read_text())["notes"]
    assert notes[:2] == [
        f"Failed, and left out: {runs / 'deep-1'} (no run in it; its log ends: nothing).",
        f"Failed, and left out: {runs / 'wide.2-1'} (no run in it; its log ends: coldrank train: no room).",
    ]
    assert notes[1] in capsys.readouterr().out


@pytest.mark.tried("configs and runs", "compare: two runs of one arm and seed", "refused with what differs")
def test_two_runs_of_one_arm_and_seed_are_told_apart(runs: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            run_command(runs / "base-1", runs / "again", runs / "poso-1", "--out", runs / "out")

    shutil.copytree(runs / "base-1", runs / "again")
    refused(
        r"again and .*base-1 are both arm base, seed 1 \(nothing in their files tells them apart\); give one of them"
    )
    config = json.loads((runs / "again/config.json").read_text())
    (runs / "again/config.json").write_text(json.dumps(config | {"optim": {"dense": {"lr": 0.5}}}))
    refused(r"both arm base, seed 1 \(optim\.dense\.lr is 0\.5, not None\)")
    for folder, digest in (("base-1", "aaaa1111b"), ("again", "cccc2222d")):
        (runs / folder / "run.json").write_text(json.dumps({"data_digest": digest}))
    refused(r"both arm base, seed 1 \(other data: manifest digest cccc2222, not aaaa1111\); .*--set name=")


def test_runs_without_a_common_task_or_rows_are_named(tmp_path: Path) -> None:
    for name, task in (("base", "like"), ("poso", "follow")):
        write_run(tmp_path / name, name, 1, (task,))
    with pytest.raises(UserError, match=r"no task is predicted by every run \(.*base: like; .*poso: follow\)"):
        compared(tmp_path / "base", tmp_path / "poso")
    for name in ("base", "poso"):
        path = tmp_path / name / "predictions-test.parquet"
        pl.read_parquet(path).rename(
            {"label_follow": "label_like", "prob_follow": "prob_like"}, strict=False
        ).clear().write_parquet(path)
    with pytest.raises(UserError, match=r"base/predictions-test.parquet: no rows"):
        compared(tmp_path / "base", tmp_path / "poso")


@pytest.mark.parametrize("cohorts", [{"new_user_max_views": 2.5}, {"new": 1}, [1], 3])
def test_cohorts_that_are_none_are_named(cohorts: object, tmp_path: Path) -> None:
    for name in ("base", "poso"):
        write_run(tmp_path / name, name, 1)
    path = tmp_path / "poso" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cohorts": cohorts}))
    with pytest.raises(
        UserError, match="poso/config.json: cohorts is .*; expected whole numbers for new_user_max_views"
    ):
        compared(tmp_path / "base", tmp_path / "poso")
