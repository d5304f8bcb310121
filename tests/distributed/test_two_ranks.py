"""Two gloo ranks on localhost, started as torchx starts them."""

import json
import os
import subprocess
import sys

import polars as pl
import pytest
from samples import write_samples
from tiny import sample_base

from coldrank.train.config import to_dict


@pytest.mark.slow
def test_two_ranks_train_and_score_every_row(tmp_path):
    data = write_samples(tmp_path / "data", {"train": 600, "valid": 100, "test": 300})
    config = tmp_path / "config.json"
    config.write_text(json.dumps(to_dict(sample_base())))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", "-m", "coldrank.train.main", "train", "--config", str(config)]
    command += ["--data", str(data), "--out", str(out), "--set", "train.epochs=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    frame = pl.read_parquet(out / "predictions-test.parquet")
    truth = pl.read_parquet(data / "samples/split=test", hive_partitioning=False)
    keys = ["user_id", "item_id", "time"]
    assert frame.select(keys).equals(truth.select(keys).sort("time", "user_id", "item_id"))
    summary = json.loads((out / "summary.json").read_text())
    assert any(r["metric"] == "auc" and r["value"] is not None for r in summary)
