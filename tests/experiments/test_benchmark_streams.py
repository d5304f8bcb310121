"""`coldrank benchmark streams` on a tiny stream."""

import json
import re
from pathlib import Path

import pytest
from benchmarked import in_this_process
from periods import write_periods
from retrieving import DAYS

from coldrank.cli.main import main

STREAMS = """
from dataclasses import replace

from retrieving import two_tower
from coldrank.metrics.retrieval import RetrievalConfig
from coldrank.train.config import RunConfig
from coldrank.train.hooks.pam import Pam


def stream() -> RunConfig:
    config = two_tower()
    train = replace(config.train, mode="periods", first_period="2022-05-03", look_back=())
    return replace(config, name="pf", retrieval=RetrievalConfig(cold=(5, 100), users=10, batch=32), train=train)


def published(base: RunConfig) -> RunConfig:
    return replace(base, hooks=(Pam(cuts=(20, 60, 120, 500), rate=0.1, adapt_on_test_labels=True),))
"""
COMMAND = ["benchmark", "streams", "--config", "my_streams:stream", "--data", "periods"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """What is trained, in the folder of a user."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "my_streams.py").write_text(STREAMS)
    write_periods(folder / "periods", DAYS)
    with in_this_process(folder) as trained:
        yield trained


def _scored(run: str) -> set[str]:
    rows = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    return {row["period"] for row in rows if row["split"] == "next"} - {None}


@pytest.mark.slow
def test_the_whole_of_it(trained: list[str], capfd: pytest.CaptureFixture[str]):
    command = [*COMMAND, "--methods", "pf_balanced", "--also", "my_streams:published", "--trials", "2", "--seeds", "2"]
    assert main([*command, "--out", "out"]) == 1
    leaks = r"published: leaks: in the last period of a short stream \d+ predictions moved$"
    assert re.search(leaks, capfd.readouterr().err, re.MULTILINE)
    assert len(trained) == len(set(trained)) == 3 * (2 + 2)
    assert {run: _scored(run) for run in trained} == {
        run: set(DAYS[2:] if "/runs/" in run else DAYS[1:2]) for run in trained
    }, "trials end before what is reported"
    found = json.loads(Path("out/benchmark.json").read_text())
    assert [(o["name"], bool(o["leak"]), o["untested"], len(o["runs"])) for o in found["outcomes"]] == [
        ("pf", False, "", 2),
        ("pf_balanced", False, "", 2),
        ("published", True, "", 2),
    ]
    rows = {(r["cohort"], r["metric"], r["arm"]): r for r in found["rows"]}
    row = rows["popular_item", "recall@5_of_all", "pf_balanced"]
    assert row["seeds"] == 2 and row["low"] <= row["difference"] <= row["high"] and row["corrected"] >= row["p"]
    text, page = (Path(f"out/benchmark.{kind}").read_text() for kind in ("md", "html"))
    assert "## cold items" in text and "| published (LEAKS) |" in text and "recall@5_of_all" in text
    assert page.count("<svg") >= 3 + 2 * 2 * 2, "swatches, and two pictures for each cohort and metric"
    trained.clear()
    assert main([*command, "--out", "out"]) == 1 and not trained


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(arguments, message, id=what)
        for arguments, message, what in [
            (
                ["--set", "train.first_period=2022-05-02"],
                "judged by periods before it, after one to begin with; --set train.first_period=2022-05-03 or later",
                "no period for trials",
            ),
            (
                ["--set", "train.first_period=May"],
                "first_period=May: must be one of the periods",
                "a period there is not",
            ),
            (["--set", "train.steps=9"], "pf: train.steps=9: ends the stream; must be 0", "a stream that is cut off"),
            (
                ["--set", "train.mode=passes", "train.first_period=", "train.look_back=[1,7]"],
                "pf: train.mode='passes': this suite goes through a stream; --set train.mode=periods",
                "a base on passes",
            ),
            (["--methods", "pam_s"], "pam_s: .*item_hist_user_id", "a method that the features do not do for"),
        ]
    ],
)
def test_what_is_refused(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]):
    assert main([*COMMAND, "--methods", "pf_towers", "--out", "never", *arguments]) == 2
    assert re.search(message, capfd.readouterr().err)
    assert not Path("never").exists()
