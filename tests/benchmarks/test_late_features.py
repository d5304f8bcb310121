"""The table of late features: judged by the views as of the event, against the base that is as late."""

import json
from pathlib import Path

import polars as pl
import pytest
from late_features import ARMS, CONFIG, cell, copy, file_of, table

from coldrank.train.load import load

SPLIT = file_of("test")


def run_folder(place: Path, views: list[int]) -> Path:
    place.mkdir(parents=True)
    n = len(views)
    frame = {"user_id": range(n), "item_id": range(n), "time": range(n), "user_views": views, "item_views": views}
    pl.DataFrame(frame | {"prob_click": [0.5] * n}).write_parquet(place / SPLIT)
    for name in ("config.json", "run.json", "summary.json"):
        (place / name).write_text(json.dumps({"name": "poso", "seed": 3}))
    return place


def test_runs_are_judged_by_the_views_as_of_the_event(tmp_path):
    """However late the model's own are: its predictions stay, the cohorts are those of the first refresh."""
    fresh, late = run_folder(tmp_path / "fresh", [0, 7, 90]), run_folder(tmp_path / "late", [0, 0, 40])
    known = pl.read_parquet(fresh / SPLIT)
    copy(late, tmp_path / "judged", "poso, 1 h", known, "test")
    judged = pl.read_parquet(tmp_path / "judged" / SPLIT)
    assert judged["user_views"].to_list() == judged["item_views"].to_list() == [0, 7, 90]
    assert judged["prob_click"].equals(pl.read_parquet(late / SPLIT)["prob_click"])
    assert json.loads((tmp_path / "judged" / "config.json").read_text()) == {"name": "poso, 1 h", "seed": 3}
    with pytest.raises(ValueError, match="other rows"):
        copy(late, tmp_path / "judged", "poso, 1 h", known[:2], "test")


def test_the_base_is_held_against_itself_in_time_and_arms_against_the_base_as_late():
    row = {"task": "click", "cohort": "all", "metric": "auc", "uncorrected": "worse", "verdict": "not distinguishable"}
    of_base = {"arm": "base", "mean": 70.0, "difference": None, "high": None}
    lost = {"arm": "base", "mean": 69.0, "difference": -1.0, "high": -0.75}
    gain = {"arm": "poso", "mean": 69.5, "difference": 0.5, "high": 0.75, "verdict": "better"}
    rows = [
        row | of_base | {"of": "lateness", "refresh": "none"},
        row | lost | {"of": "lateness", "refresh": "1 h"},
        row | of_base | {"of": "1 h", "refresh": "1 h", "mean": 69.0},
        row | gain | {"of": "1 h", "refresh": "1 h"},
    ]
    lines = [
        [c.strip() for c in line.split("|")[1:-1]] for line in table(rows, "click", "all", ["none", "1 h"]).splitlines()
    ]
    assert lines[0] == ["arm", "none", "1 h"]
    assert lines[2:] == [["base", "70.00", "-1.00 ±0.25▽"], ["poso", "-", "+0.50 ±0.25▲"]]
    assert cell(None) == "-"


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_has_its_name(arm):
    assert load(f"{CONFIG}:{arm}").name == arm
