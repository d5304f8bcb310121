"""Methods that keep models of earlier periods, on two gloo ranks."""

import json
from dataclasses import replace

import polars as pl
import pytest
from launch import launch
from periods import write_periods
from retrieving import DAYS
from streams import streamed
from tiny import sample_base

from coldrank.train.config import to_dict
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.hooks.asmg import ASMG
from coldrank.train.hooks.incctr import IncCTR
from coldrank.train.hooks.sml import SML

HOOKS = {
    "incctr": (IncCTR(weight=2.0), "row_wise"),
    "sml": (SML(after=1), "column_wise"),
    "asmg": (ASMG(length=2, hidden=2, after=3), "row_wise"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOOKS)
def test_two_ranks_score_each_period_as_one_does(tmp_path, name):
    """Steps are of the same 64 rows. Tolerance: as for plain steps."""
    hook, sharding = HOOKS[name]
    data = write_periods(tmp_path / "data", DAYS)
    columns = {"column_width": 4} if sharding == "column_wise" else {}
    config = replace(streamed(sample_base(), hook), sharding=ShardingConfig(default=sharding, **columns))
    scored = {}
    for ranks in (1, 2):
        own = replace(config, data=replace(config.data, batch_size=64 // ranks))
        (tmp_path / "config.json").write_text(json.dumps(to_dict(own)))
        command = ["-m", "coldrank.train.main", "train", "--config", str(tmp_path / "config.json"), "--data", str(data)]
        launch(ranks, *command, "--out", str(tmp_path / str(ranks)))
        scored[ranks] = pl.read_parquet(tmp_path / str(ranks) / "predictions-next.parquet")
    one, two = scored[1], scored[2]
    assert one.height == two.height == 3 * 150
    for task in ("long_view", "like"):
        assert (one[f"prob_{task}"] - two[f"prob_{task}"]).abs().max() < 2e-5
