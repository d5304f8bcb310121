"""Every command on folders whose names hold what other programs take for patterns, columns or escapes."""

import json
from pathlib import Path

import polars as pl
import pytest

from coldrank.cli.main import main

ODD = "lr[0.1] *?=1 %41#{x}"
SMALL = ["train.threads=1", "model.expert_hidden=[16,8]", "data.batch_size=256", "optim.decay=constant"]


def run(*arguments: str | Path) -> None:
    assert main([str(a) for a in arguments]) == 0, arguments


@pytest.mark.slow
@pytest.mark.tried("data folders", f"every command in folders named `{ODD}`", "as any name")
def test_commands_take_a_path_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    log, data, export = (folder / f"{n}-{ODD}" for n in ("log", "data", "export"))
    runs = [folder / f"r{i}-{ODD}" for i in (0, 1)]
    settings = [word for s in SMALL for word in ("--set", s)]
    run("simulate", "--events", "3000", "--days", "6", "--out", log)
    run("prepare", "kuairand", "--data", log, "--out", data, "--test-from", "2022-05-04")
    arguments = ["check", "--data", data, "--config", "coldrank.configs.kuairand:poso", "--out", folder / "check"]
    with pytest.raises(SystemExit, match="1"):  # nobody follows in so small a log
        main([str(a) for a in arguments])
    assert json.loads((folder / "check" / "check.json").read_text())
    for path, arm, steps in ((runs[0], "base", 6), (runs[1], "poso", 4), (runs[1], "poso", 6)):  # the last is resumed
        config = f"coldrank.configs.kuairand:{arm}"
        run("train", "--config", config, "--data", data, "--out", path, *settings, "--set", f"train.steps={steps}")
    run("evaluate", "--run", runs[1], "--data", data, "--split", "test", "--predictions", folder / f"p{ODD}.parquet")
    assert pl.read_parquet(folder / f"p{ODD}.parquet", glob=False).height > 100
    run("compare", *runs, "--out", folder / f"compared {ODD}")
    run("explain", runs[1], "--data", data, "--out", folder / f"explained {ODD}", "--rows", "500")
    run("export", "--run", runs[1], "--data", data, "--out", export)
    sample = next((data / "samples").rglob("*.parquet"))
    run("score", "--artifact", export, "--input", sample, "--out", folder / f"scores {ODD}.parquet")
    scores = pl.read_parquet(folder / f"scores {ODD}.parquet", glob=False)
    assert len(scores) == len(pl.read_parquet(sample, glob=False)) and "prob_like" in scores.columns
