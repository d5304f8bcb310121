"""Streams of periods on two gloo ranks."""

import json
from dataclasses import replace

import polars as pl
import pytest
from launch import launch
from periods import write_periods
from tiny import sample_base

from coldrank.configs import base as arms
from coldrank.train.config import to_dict

DAYS = [f"2022-05-0{d}" for d in range(1, 5)]


@pytest.mark.slow
def test_two_ranks_score_each_period_as_one_does_and_go_on_exactly(tmp_path):
    """Steps are of the same 64 rows. Tolerance: as for plain steps."""
    data = write_periods(tmp_path / "data", DAYS)
    config = arms.poso(sample_base())
    config = replace(config, data=replace(config.data, order="time"))
    config = replace(config, train=replace(config.train, mode="periods", first_period=DAYS[1], look_back=(1,)))

    def run(name, ranks, *settings):
        own = replace(config, data=replace(config.data, batch_size=64 // ranks))
        (tmp_path / "config.json").write_text(json.dumps(to_dict(own)))
        command = ["-m", "coldrank.train.main", "train", "--config", str(tmp_path / "config.json"), "--data", str(data)]
        launch(ranks, *command, "--out", str(tmp_path / name), *(part for s in settings for part in ("--set", s)))
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [r for r in rows if r["split"] in ("next", "back")], tmp_path / name / "predictions-next.parquet"

    (_, alone), (rows, both) = run("one", 1), run("two", 2)
    one, two = pl.read_parquet(alone), pl.read_parquet(both)
    assert one.height == two.height == 3 * 150
    assert one.drop("prob_long_view", "prob_like").equals(two.drop("prob_long_view", "prob_like"))
    for task in ("long_view", "like"):
        assert (one[f"prob_{task}"] - two[f"prob_{task}"]).abs().max() < 2e-5
    run("cut", 2, "train.steps=5", "train.checkpoint_every=2")
    resumed, again = run("cut", 2)
    assert again.read_bytes() == both.read_bytes() and resumed == rows
