"""MWUF and PAM together on two gloo ranks, one of which may have no cold row in a batch."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launch import launch
from retrieving import PAM, two_tower
from samples import write_samples

from coldrank.train.config import to_dict
from coldrank.train.hooks.mwuf import Mwuf


@pytest.mark.slow
@pytest.mark.tried(
    "ranks", "mwuf,pam with pam.across=ranks, and batches without a cold row on a rank", "both ranks go on"
)
@pytest.mark.parametrize("order", [("mwuf", "pam"), ("pam", "mwuf")], ids="-".join)
def test_a_rank_without_cold_rows_keeps_up_with_the_other(tmp_path, order):
    base = two_tower()
    pam = replace(PAM, across="ranks", gamma=(1.0, 3.0, 2.0))
    # Views reach to 199: of the 32 rows of a rank, few are 0 or 1.
    by_name = {"pam": pam, "mwuf": Mwuf(max_views=1, users=8, warm_every=1)}
    config = replace(base, hooks=tuple(by_name[name] for name in order))
    path = tmp_path / "both.json"
    path.write_text(json.dumps(to_dict(config)))
    data = write_samples(tmp_path / "data")
    steps = Path(__file__).with_name("steps.py")
    launch(2, steps, "--config", path, "--data", data, "--steps", 8, "--out", tmp_path)
    assert torch.load(tmp_path / "both.pt")["loss"].isfinite().all()
