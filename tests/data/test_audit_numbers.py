"""The audit of labels that are numbers and levels: sound ones have no alarm, each fault is named."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from event_logs import prepare_frame
from test_audit import HISTORY, SPEC, Change, alarms, arm, event_log, on, with_fault

from coldrank.data.log import LogSpec
from coldrank.models.heads import Binary, Ordinal, Regression

TASKS = {"click": Binary(), "stay_s": Regression(loss="huber", transform="log1p"), "stars": Ordinal(5)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound prepared data with seconds, a fifth of them unknown, and stars."""
    folder, rng = tmp_path_factory.mktemp("audit"), np.random.default_rng(9)
    log = event_log()
    seconds = np.where(
        rng.random(len(log)) < 0.2, np.nan, rng.gamma(2.0, 8.0, len(log)) * (1 + log["click"].to_numpy())
    )
    stars = np.clip(np.round(rng.normal(3.5, 1.0, len(log))), 1, 5)
    log = log.with_columns(pl.Series("seconds", seconds), pl.Series("stars", stars))
    fields = {name: getattr(SPEC, name) for name in SPEC.__slots__}
    spec = LogSpec(
        **fields | {"numbers": {"stay_s": "seconds"}, "levels": {"stars": "stars"}, "weight": pl.col("place") + 1}
    )
    prepare_frame(log, folder, spec, HISTORY)
    return folder / "out"


def test_numbers_and_levels_are_no_violation(sound: Path) -> None:
    assert alarms(sound) == []
    assert alarms(sound, arm(tasks=TASKS)) == []


STAY, STARS = pl.col("label_stay_s"), pl.col("label_stars")
FIRST = pl.int_range(pl.len()) == 2
# change, whether an arm is checked, severity, check, where, what
FAULTS: dict[str, tuple[Change, bool, str, str, str, str]] = {
    "a level that is none": (
        on("test", label_stars=pl.when(FIRST).then(6).otherwise(STARS)),
        True, "error", "values", "label_stars", r"2 with a value that is no level: there are 5, 1 to 5 .* row 3",
    ),
    "seconds below 0": (
        on("test", label_stay_s=pl.when(FIRST).then(-1.0).otherwise(STAY)),
        True, "error", "values", "label_stay_s", "2 with a value that is below 0, of which transform='log1p' has no",
    ),
    "infinite seconds": (
        on(label_stay_s=pl.when(FIRST).then(float("inf")).otherwise(STAY)),
        False, "error", "values", "label_stay_s", r"\d infinite",
    ),
    "half a star": (
        on(label_stars=STARS - 0.5), False, "error", "values", "label_stars", "that are no whole numbers",
    ),
    "never known": (
        on(label_stay_s=pl.lit(None, pl.Float32)), False, "error", "labels", "label_stay_s", "no sample has this label",
    ),
    "all alike": (
        on("train", "valid", label_stay_s=pl.lit(7.25, pl.Float32)),
        False, "error", "labels", "label_stay_s", "known labels are 7.25",
    ),
    "twice as long in test": (
        on("test", label_stay_s=STAY * 2),
        False, "warning", "label drift", "test: label_stay_s", "share above .*, the mean of training, .* log-odds",
    ),
    "a weight below 0": (
        on("train", weight=pl.lit(-1.0)), False, "error", "values", "weight", "below 0 among",
    ),
    "a weight that is missing": (
        on("train", weight=pl.lit(None, pl.Float32)), False, "error", "values", "weight", "missing among",
    ),
    "seconds as a feature": (
        on(length=STAY.fill_null(0.0)), False, "error", "leak", "length", "alone it ranks stay_s with AUC",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [pytest.param(f, marks=pytest.mark.tried("data folders", f"numbers as labels: {f}", "named")) for f in FAULTS],
)
def test_a_planted_fault_is_found(sound: Path, tmp_path: Path, fault: str) -> None:
    change, with_arm, severity, check, where, what = FAULTS[fault]
    findings = alarms(with_fault(sound, tmp_path, change), arm(tasks=TASKS) if with_arm else None)
    assert any(
        (f.severity, f.check) == (severity, check) and where in f.where and re.search(what, f.what) for f in findings
    ), findings


def test_levels_that_an_arm_lacks_are_named_though_the_data_has_them(sound: Path) -> None:
    (found,) = [f for f in alarms(sound, arm(tasks=TASKS | {"stars": Ordinal(4)})) if f.check == "values"]
    assert "with a value that is no level: there are 4, 1 to 4" in found.what
