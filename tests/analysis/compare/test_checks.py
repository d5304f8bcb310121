"""Which runs may be compared, and which have failed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from compared import compared, write_run

from coldrank.analysis.compare.aspects import Aspect
from coldrank.analysis.compare.checks import ASPECTS
from coldrank.analysis.compare.table import format_overview
from coldrank.data.errors import UserError

CONFIG: dict[str, Any] = {
    "tasks": {"like": 1.0},
    "features": [
        {"name": "user_views", "role": "user", "column": "", "columns": []},
        {"name": "item_age", "role": "item", "column": "item_age_h", "buckets": 16},
        {"name": "pc", "role": "pc", "column": "user_views"},
    ],
    "model": {"poso_mha": False, "pc": "feature"},
    "data": {"fit": ["train"], "evaluate": "test", "batch_size": 10},
    "train": {"epochs": 1, "steps": 0},
}
FACTS = {"finished": True, "data_digest": "a" * 64, "samples": 1000, "world_size": 2}


def write(folder: Path, name: str, seed: int = 1, facts: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A run with the whole CONFIG but for `changes`."""
    write_run(folder, name, seed)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"name": name, "seed": seed} | changes))
    if facts is not None:
        (folder / "run.json").write_text(json.dumps(facts))
    return folder


def feature(name: str, **changes: Any) -> list[dict[str, Any]]:
    """The features of CONFIG with one of them changed."""
    return [f | changes if f["name"] == name else f for f in CONFIG["features"]]


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "data": ({}, {"data_digest": "b" * 64}, "manifest digest bbbbbbbb, not aaaaaaaa"),
    "splits": ({"data": CONFIG["data"] | {"fit": ["train", "valid"]}}, {}, r"data.fit \['train', 'valid'\], .* not "),
    "features": ({"features": CONFIG["features"][1:]}, {}, "lacks user_views"),
    "tasks": ({"tasks": {"like": 1.0, "follow": 1.0}}, {}, "follow, like, not like"),
    "passes": ({}, {"samples": 1021}, "1,021 samples read in training, not 1,000"),
}


@pytest.mark.parametrize("aspect", REFUSED)
def test_unlike_runs_are_refused_with_the_difference(aspect: str, tmp_path: Path) -> None:
    changes, facts, text = REFUSED[aspect]
    base = write(tmp_path / "base", "base", facts=FACTS)
    other = write(tmp_path / "other", "other", facts=FACTS | facts, **changes)
    with pytest.raises(UserError, match=f"other: other {aspect} than .*base: {text}.*--allow {aspect}"):
        compared(base, other)
    comparison = compared(base, other, allowed=[aspect])
    assert comparison.allowed == (aspect,) and len(comparison.notes) == 1
    assert comparison.notes[0].startswith(f"Allowed: other has other {aspect} than base: ")


def test_every_aspect_is_a_choice_and_tested() -> None:
    assert list(ASPECTS) == list(Aspect) == list(REFUSED)


def test_what_differs_in_a_feature_and_in_length_is_named(tmp_path: Path) -> None:
    base = write(tmp_path / "base", "base")
    cases: dict[str, dict[str, Any]] = {
        "item_age.buckets is 32, not 16": {"features": feature("item_age", buckets=32)},
        "adds pc": {"features": feature("pc", column="user_age"), "model": {"poso_mha": True, "pc": "feature"}},
        "train.epochs 2, train.cold_passes 0, not train.epochs 1": {"train": {"epochs": 2}},
        "train.steps x data.batch_size 70, not train.epochs 1": {"train": {"epochs": 1, "steps": 7}},
        "train.steps x data.global_batch_size 210, not train.epochs 1": {
            "train": {"epochs": 1, "steps": 7},
            "data": {"global_batch_size": 30},
        },
    }
    for number, (text, changes) in enumerate(cases.items()):
        with pytest.raises(UserError, match=text):
            compared(base, write(tmp_path / str(number), "other", **changes))


def test_what_does_not_differ_is_compared(tmp_path: Path) -> None:
    runs = [
        write(tmp_path / "base", "base", facts=FACTS),
        # A personalization code of a column that is read anyway, a batch more or less, and fields of another version.
        write(
            tmp_path / "poso", "poso", facts=FACTS | {"samples": 1020}, model={"poso_mha": True}, features=feature("pc")
        ),
        write(tmp_path / "newer", "newer", features=feature("item_age", dropout=0.0), train={"epochs": 1}),
    ]
    write_run(tmp_path / "trees", "trees", 1)
    assert compared(*runs, tmp_path / "trees").notes == ()


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    runs = [write(tmp_path / name, name, facts=FACTS | {"finished": name == "base"}) for name in ("base", "poso")]
    with pytest.raises(UserError, match="poso: run.json says that it is not finished"):
        compared(*runs)


FAILURES: dict[str, tuple[Callable[[], pl.Expr], str]] = {
    "constant": (lambda: pl.lit(0.25, dtype=pl.Float32), "every prob_like is 0.25"),
    "not finite": (
        lambda: pl.when(pl.col("time") == 7).then(float("nan")).otherwise(pl.col("prob_like")),
        "nan at row 7",
    ),
    "no better than chance": (lambda: 0.9 - 0.8 * pl.col("prob_like"), "no better than chance, and NE is"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failed_run_is_named_and_left_out(kind: str, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        write_run(tmp_path / "runs" / f"base-{seed}", "base", seed, shift=1.0)
        write_run(tmp_path / "runs" / f"poso-{seed}", "poso", seed, shift=1.0)
    expression, reason = FAILURES[kind]
    path = tmp_path / "runs" / "poso-2" / "predictions-test.parquet"
    pl.read_parquet(path).with_columns(prob_like=expression()).write_parquet(path)
    comparison = compared(tmp_path / "runs")
    assert "poso (2 of 3)" in format_overview(comparison.rows)
    assert (
        len(comparison.notes) == 1
        and f"Failed, and left out: {path.parent} (" in comparison.notes[0]
        and reason in comparison.notes[0]
    )
    assert [run.failed is None for run in comparison.runs] == [True, True, True, True, False, True]
    row = next(row for row in comparison.rows if row.arm == "poso")
    assert (row.seeds, row.failed, row.pairs) == (2, 1, 2)
    for seed in (1, 3):
        (tmp_path / "runs" / f"poso-{seed}" / "predictions-test.parquet").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="no arm is left to compare with base: .* all of its 3 runs failed"):
        compared(tmp_path / "runs")
    with pytest.raises(UserError, match="every run of the baseline poso has failed"):
        compared(tmp_path / "runs", baseline="poso")


@pytest.mark.parametrize("column", ["infinite", "whole numbers"])
def test_what_is_no_probability_is_named_as_what_it_is(column: str, tmp_path: Path) -> None:
    for name in ("base", "poso"):
        write_run(tmp_path / name, name, 1, shift=1.0)
    path = tmp_path / "poso" / "predictions-test.parquet"
    value = pl.lit(float("inf")) if column == "infinite" else pl.lit(1, dtype=pl.Int64)
    pl.read_parquet(path).with_columns(prob_like=value).write_parquet(path)
    message = "prob_like is inf at row 0" if column == "infinite" else "column prob_like is .*expected floats"
    with pytest.raises(UserError, match=message):
        compared(tmp_path / "base", tmp_path / "poso")


def test_a_null_is_refused_before_it_is_judged(tmp_path: Path) -> None:
    for name in ("base", "poso"):
        write_run(tmp_path / name, name, 1, shift=1.0)
    path = tmp_path / "poso" / "predictions-test.parquet"
    nulls = pl.when(pl.col("time") == 3).then(None).otherwise(pl.col("prob_like"))
    pl.read_parquet(path).with_columns(prob_like=nulls).write_parquet(path)
    with pytest.raises(UserError, match="prob_like is None at row 3"):
        compared(tmp_path / "base", tmp_path / "poso")


def test_few_labels_of_a_class_are_no_failure(tmp_path: Path) -> None:
    """Of equal predictions nothing is said below 100 labels of either class."""
    for rows, failed in ((150, False), (400, True)):
        folder = tmp_path / str(rows)
        for name in ("base", "poso", "third"):
            table = write_run(folder / name, name, 1, shift=1.0, rows=rows)
        path = folder / "poso" / "predictions-test.parquet"
        pl.read_parquet(path).with_columns(prob_like=pl.lit(0.25, dtype=pl.Float32)).write_parquet(path)
        assert (min(table["label_like"].sum(), rows - table["label_like"].sum()) >= 100) == failed
        comparison = compared(folder / "base", folder / "poso", folder / "third")
        assert [run.failed is not None for run in comparison.runs] == [False, failed, False]


def test_features_that_are_no_list_of_names_differ_from_none(tmp_path: Path) -> None:
    """Another program's config.json: what cannot be read is not compared."""
    base = write(tmp_path / "base", "base")
    for number, features in enumerate(("all", [{"column": "a"}], ["user_views"], [{"name": "x"}, {"role": "pc"}])):
        assert compared(base, write(tmp_path / str(number), f"arm{number}", features=features)).notes == ()


def test_a_run_that_predicts_too_boldly_has_not_failed(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path / f"base-{seed}", "base", seed)
        write_run(tmp_path / f"poso-{seed}", "poso", seed)
    path = tmp_path / "poso-1" / "predictions-test.parquet"
    odds = (pl.col("prob_like") / (1 - pl.col("prob_like"))).log()
    pl.read_parquet(path).with_columns(prob_like=1 / (1 + (-10 * odds).exp())).write_parquet(path)
    comparison = compared(*tmp_path.iterdir())
    assert not any(run.failed for run in comparison.runs)
    entropy = [row.mean for row in comparison.rows if (row.arm, row.cohort, row.metric) == ("poso", "all", "ne")]
    assert entropy[0] is not None and entropy[0] > 100
