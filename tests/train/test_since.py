"""Training on the last periods alone: as on data that hold no others."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from periods import write_periods
from tiny import sample_base

from coldrank.data.audit.newness import newness_of
from coldrank.data.audit.report import audit
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.train.checks import as_arm
from coldrank.train.config import RunConfig
from coldrank.train.dry_run import check_run
from coldrank.train.trainer import train

DAYS = [f"2022-05-0{d}" for d in range(1, 6)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return DataFolder.open(write_periods(tmp_path_factory.mktemp("whole") / "d", DAYS))


@pytest.fixture(scope="module")
def last(tmp_path_factory):
    """The same without the first two days."""
    folder = write_periods(tmp_path_factory.mktemp("last") / "d", DAYS)
    manifest = json.loads((folder / "manifest.json").read_text())
    for part in manifest["partitions"]:
        if part["period"] < DAYS[2]:
            (folder / part["path"]).unlink()
    manifest["partitions"] = [p for p in manifest["partitions"] if p["period"] >= DAYS[2]]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return DataFolder.open(folder)


def of_mode(mode: str, since: str) -> RunConfig:
    config = sample_base()
    of_passes = {"fit": ("train",)} if mode == "passes" else {}
    streamed = {"mode": mode, "look_back": (1,)} if mode == "periods" else {}
    data, course = replace(config.data, since=since, **of_passes), replace(config.train, **streamed)
    return replace(config, data=data, train=course)


def results(folder: Path) -> tuple[list[dict], pl.DataFrame]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    predictions = [pl.read_parquet(p) for p in sorted(folder.rglob("predictions-*"), key=str) if p.is_file()]
    return [r for r in rows if r["metric"] != "samples_per_second"], pl.concat(predictions)


@pytest.mark.parametrize("mode", ["passes", "periods"])
def test_a_run_on_the_last_days_is_one_on_data_of_these_alone(whole, last, ranks, tmp_path, mode):
    train(of_mode(mode, DAYS[2]), whole, tmp_path / "since", ranks, fresh=False, diff="")
    train(of_mode(mode, ""), last, tmp_path / "last", ranks, fresh=False, diff="")
    (ours, predicted), (theirs, expected) = results(tmp_path / "since"), results(tmp_path / "last")
    assert predicted.equals(expected) and ours == theirs and len(predicted) > 0
    facts = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("since", "last")]
    assert facts[0]["samples"] == facts[1]["samples"] < sum(p["rows"] for p in whole.manifest["partitions"])


@pytest.mark.parametrize("since", [DAYS[0], "2022-06-01", "May"])
def test_a_first_period_that_leaves_nothing_out_is_refused(whole, ranks, tmp_path, since):
    said = f"data.since={since}: must be one of the periods of .* after the first, {DAYS[0]} to {DAYS[4]}"
    config = of_mode("passes", since)
    with pytest.raises(UserError, match=said):
        train(config, whole, tmp_path / "run", ranks, fresh=False, diff="")
    for check in (lambda: check_run(config, whole), lambda: audit(whole.path, as_arm(config))):
        with pytest.raises(UserError, match=said):
            check()


def test_a_split_that_ends_before_is_named(whole):
    parts = [p | {"split": "old"} if p["period"] == DAYS[0] else p for p in whole.manifest["partitions"]]
    folder = DataFolder(whole.path, {"partitions": parts}).read_since(DAYS[1])
    with pytest.raises(UserError, match=f"no split 'old' since {DAYS[1]}; it has test, train"):
        folder.files(("old",))


def test_an_audit_looks_at_what_is_read(whole):
    rows = {since: audit(whole.path, as_arm(of_mode("passes", since))).rows for since in ("", DAYS[2])}
    assert rows[DAYS[2]] < rows[""] == sum(p["rows"] for p in whole.manifest["partitions"])


def test_files_without_rows_tell_nothing_of_new_users(tmp_path):
    folder = write_periods(tmp_path / "d", DAYS[:1])
    manifest = json.loads((folder / "manifest.json").read_text())
    for part in manifest["partitions"]:
        frame = pl.read_parquet(folder / part["path"], hive_partitioning=False)
        frame.clear().write_parquet(folder / part["path"])
        part["rows"] = 0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert newness_of(DataFolder.open(folder), as_arm(of_mode("passes", ""))) is None
