"""One run on 4 ranks, then on 2, then on 3, killed with SIGKILL in between.

With `data.global_batch_size` it trains, step by step, on the rows of a run that nobody touched, and ends as that does,
to the rounding of alike.py.
"""

import json
from collections import Counter
from dataclasses import replace

import pytest
from alike import global_batch, same
from killing import Kill, Life, live
from periods import write_periods
from samples import write_samples
from test_killed import done
from tiny import sample_base

from coldrank.configs import base as arms
from coldrank.train.config import to_dict
from coldrank.train.sections import DataConfig

RANKS = (4, 2, 3)
PERIODS = [f"2022-05-0{day}" for day in range(1, 8)]
# Rows of each pass and of each period.
STAGES = {"passes": [700] * 3, "stream": [160] * len(PERIODS)}


def steps(rows: int) -> int:
    """Steps of 64 rows of all ranks together."""
    return -(-rows // 64)


def rows_by_step(life: Life) -> list[Counter[int]]:
    """The rows of all ranks, as far as every rank has come."""
    return [Counter(row for rank in step for row in rank) for step in zip(*life.trained, strict=False)]


@pytest.fixture
def command(request, tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS"):  # before the first rank is forked
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = arms.poso(global_batch(sample_base(), epochs=3, checkpoint_every=3))
    data = replace(config.data, fit=("train", "valid"))
    if request.param == "stream":
        folder = write_periods(tmp_path / "data", PERIODS)
        data = replace(config.data, order="time", fit=DataConfig().fit)
        config = replace(config, train=replace(config.train, mode="periods", epochs=1, first_period=PERIODS[1]))
    else:
        folder = write_samples(tmp_path / "data")
    (tmp_path / "config.json").write_text(json.dumps(to_dict(replace(config, data=data))))
    return ["train", "--config", str(tmp_path / "config.json"), "--data", str(folder)]


@pytest.mark.slow
@pytest.mark.tried("ranks", "4 ranks, then 2, then 3, killed in between", "each row once a pass, ends as 2 throughout")
@pytest.mark.parametrize(("command", "kind"), [("passes", "passes"), ("stream", "stream")], indirect=["command"])
def test_killed_on_4_ranks_then_on_2_ends_on_3_as_a_run_that_was_left_alone(command, kind, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    undisturbed = live([*command, "--out", str(whole)], whole, tmp_path / "notes", 2, None)
    total = sum(map(steps, STAGES[kind]))
    assert undisturbed.codes == [0, 0] and done(whole) == total
    trained: list[Counter[int]] = []
    for part, ranks in enumerate(RANKS):
        before, last = done(out), part == len(RANKS) - 1
        kill = None if last else Kill(None, round(undisturbed.operations * 0.4), 0)
        life = live([*command, "--out", str(out)], out, tmp_path / f"notes-{part}", ranks, kill)
        assert life.codes == [0 if last else -9] * ranks, (tmp_path / f"notes-{part}/log-0").read_text()
        kept = done(out) - before
        assert kept > 0, "killed before its first checkpoint"
        trained += rows_by_step(life)[:kept]  # what came after the checkpoint is done again
    assert trained == rows_by_step(undisturbed) and len(trained) == total
    first = 0
    for rows in STAGES[kind]:
        read = sum(trained[first : first + steps(rows)], Counter())
        assert len(read) == rows and set(read.values()) == {1}
        first += steps(rows)
    same(out, whole)
