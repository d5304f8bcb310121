"""A log with columns of every kind, through the commands: prepare, check, train, evaluate, export, score, explain."""

import json
from pathlib import Path

import kinds
import polars as pl
import pytest

from coldrank.cli.main import main


def answered(*command: object) -> None:
    assert main(list(map(str, command))) == 0, command


@pytest.mark.slow
@pytest.mark.tried("exports", "a log with vectors, weighted ids, hours and crosses", "`score` is `evaluate` to 1e-6")
def test_a_log_of_every_kind_goes_from_prepare_to_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = kinds.prepared(tmp_path)
    run, arm, fast = tmp_path / "run", "kinds:poso", ("--set", "optim.dense.lr=0.02")
    answered("check", "--data", data.path)
    answered("check", "--data", data.path, "--config", arm)
    answered("train", "--config", arm, "--data", data.path, "--out", run, "--set", "train.steps=12", *fast)
    answered("evaluate", "--run", run, "--data", data.path, "--split", "test", "--predictions", tmp_path / "p.parquet")
    answered("export", "--run", run, "--out", tmp_path / "export")
    test = data.path / "samples" / "split=test"
    answered("score", "--artifact", tmp_path / "export", "--input", test, "--out", tmp_path / "s.parquet")
    order = ["time", "user_id", "item_id"]
    ours, theirs = (pl.read_parquet(tmp_path / f"{n}.parquet").sort(order) for n in "sp")
    assert ours.height == 180 and ours.select(order).equals(theirs.select(order))
    assert (ours["prob_click"] - theirs["prob_click"]).abs().max() < 1e-6 and ours["prob_click"].std() > 0.001
    masks = ("--mask", "item_emb", "--mask", "clicks", "--mask", "query")
    answered("explain", run, "--data", data.path, "--out", tmp_path / "inside", "--rows", "150", *masks)
    found = json.loads((tmp_path / "inside" / "explain.json").read_text())
    assert {"item_emb", "clicks", "query"} <= set(json.dumps(found).replace('"', " ").split())
    answered("train", "--config", arm, "--data", data.path, "--out", run, "--set", "train.steps=14", *fast)
    answered("export", "--run", run, "--out", tmp_path / "later", "--delta", tmp_path / "export")
    assert (tmp_path / "later" / "delta.pt").stat().st_size > 0
