"""Logs of one's own, from `coldrank spec` by the commands that it prints to an export and its scores."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from own_logs import ads, impressions, ratings, sessions

from coldrank.cli.main import main

SMALL = [
    "--set",
    "train.threads=1",
    "model.expert_hidden=[16,8]",
    "model.experts=2",
    "data.batch_size=128",
    "train.steps=14",
]
LOGS: dict[str, tuple[Callable[[Path], Path], set[str]]] = {
    "ratings": (ratings, {"prob_good_rating", "pred_rating"}),
    "impressions": (impressions, {"prob_clicked", "prob_liked", "pred_dwell_seconds"}),
    "sessions": (sessions, {"prob_chosen"}),
    "ads": (ads, {"prob_converted"}),
}


def commands(output: str) -> list[list[str]]:
    """The commands that `coldrank spec` printed."""
    lines = [line.strip() for line in output.splitlines() if line.startswith("  ")]
    assert all(line.startswith("coldrank ") for line in lines) and len(lines) == 4
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("shape", list(LOGS))
def test_a_log_runs_from_spec_to_its_scores(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    make, answers = LOGS[shape]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "log")
    assert main(["spec", "--data", "log", "--out", f"mine_{shape}"]) == 0
    prepare, check, train, compare = commands(capsys.readouterr().out)
    assert main(prepare) == 0
    assert main(check) == 0
    train[train.index("--seeds") + 1] = "1"
    assert main([*train, *SMALL]) == 0
    assert main(compare) == 0
    mine = tmp_path / f"mine_{shape}"
    assert "poso" in (mine / "comparison/compare.md").read_text()
    run = mine / "runs/poso-1"
    predicted = pl.read_parquet(run / "predictions-test.parquet")
    assert answers <= set(predicted.columns)
    assert main(["export", "--run", str(run), "--data", str(mine / "data"), "--out", str(mine / "export")]) == 0
    score = ["score", "--artifact", str(mine / "export"), "--input", str(mine / "data/samples/split=test")]
    assert main([*score, "--out", str(tmp_path / "scores.parquet")]) == 0
    keys = ["time", "user_id", "item_id"]
    ours, predicted = (p.sort(keys) for p in (pl.read_parquet(tmp_path / "scores.parquet"), predicted))
    assert ours.select(keys).equals(predicted.select(keys))
    for column in answers:
        assert np.allclose(ours[column].to_numpy(), predicted[column].to_numpy(), rtol=1e-5, atol=1e-6), column
