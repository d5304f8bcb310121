"""The commands as a user types them, on a small simulated log."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from coldrank.cli.main import main
from coldrank.data.log import check_spec
from coldrank.data.own_log import load_spec

ROOT = Path(__file__).parents[2]
SMALL = ["--set", "train.threads=1", "--set", "model.expert_hidden=[16,8]", "--set", "data.batch_size=256"]
POSO = "coldrank.configs.kuairand:poso"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with log, data and a trained run."""
    folder = tmp_path_factory.mktemp("commands")
    log, data, run = (str(folder / n) for n in ("log", "data", "run"))
    assert main(["simulate", "--events", "3000", "--days", "6", "--out", log]) == 0
    assert main(["prepare", "kuairand", "--data", log, "--out", data, "--test-from", "2022-05-04"]) == 0
    assert main(["train", "--config", POSO, "--data", data, "--out", run, "--set", "train.steps=6", *SMALL]) == 0
    return folder


@pytest.mark.slow
def test_evaluate_scores_as_train_did(trained: Path, tmp_path: Path):
    again = tmp_path / "p.parquet"
    arguments = ["evaluate", "--run", str(trained / "run"), "--data", str(trained / "data"), "--split", "test"]
    assert main([*arguments, "--predictions", str(again)]) == 0
    assert again.read_bytes() == (trained / "run/predictions-test.parquet").read_bytes()


@pytest.mark.slow
def test_simulated_data_tell_the_best_reachable_auc(trained: Path):
    rows = json.loads((trained / "run/summary.json").read_text())
    best = {r["task"]: r["value"] for r in rows if r["metric"] == "best_auc" and r["cohort"] == "all"}
    reached = {r["task"]: r["value"] for r in rows if r["metric"] == "auc" and r["cohort"] == "all"}
    assert best["long_view"] > 0.7 and best["long_view"] > reached["long_view"]


@pytest.mark.slow
def test_a_run_is_repeated_from_its_own_config(trained: Path, tmp_path: Path):
    arguments = ["train", "--config", str(trained / "run/config.json"), "--data", str(trained / "data")]
    assert main([*arguments, "--out", str(tmp_path / "again")]) == 0
    ours, theirs = (f / "predictions-test.parquet" for f in (trained / "run", tmp_path / "again"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert "model.poso_mha: False -> True" in (trained / "run/diff.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config", POSO, "--data", "LOG", "--out", "OUT"], "log: not a prepared data folder"),
        (
            ["train", "--config", POSO, "--data", "DATA", "--out", "OUT", "--set", "data.fit=past"],
            "no split 'past'; it has",
        ),
        (["train", "--config", POSO, "--data", "DATA", "--out", "OUT", "--set", "seed=x"], "seed='x': input should be"),
        (["evaluate", "--run", "OUT", "--data", "DATA"], "config.json: .*No such file"),
        (["evaluate", "--run", "RUN", "--data", "DATA", "--split", "later"], "no split 'later'"),
        (
            ["train", "--config", "coldrank.configs.movielens:base", "--data", "DATA", "--out", "OUT"],
            "no column 'hist_favorite' among .* near it: hist_",
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(trained, tmp_path, capfd, arguments, message):
    names = {"LOG": trained / "log", "DATA": trained / "data", "RUN": trained / "run", "OUT": tmp_path / "out"}
    assert main([str(names.get(a, a)) for a in arguments]) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith(f"coldrank {arguments[0]}: ") and re.search(message, line)


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert all(c in text for c in ("prepare", "simulate", "train", "evaluate", "compare"))


def test_the_guide_s_spec_is_one(tmp_path: Path):
    block = re.search(r"```python\n(import polars.*?)```", (ROOT / "docs/own_log.md").read_text(), re.DOTALL)
    assert block is not None
    (tmp_path / "spec.py").write_text(block[1])
    spec = load_spec(tmp_path / "spec.py")
    check_spec(spec)
    assert isinstance(spec.tasks["finish"], pl.Expr)
