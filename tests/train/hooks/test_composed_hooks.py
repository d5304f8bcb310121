"""MetaCF and MWUF on at once, in either order, with POSO, and with PAM on the two-tower model."""

import json
from dataclasses import replace

import pytest
from retrieving import two_tower
from test_metacf_hook import towers, with_metacf
from tiny import growing, sample_base

from coldrank.configs import base as arms
from coldrank.train.hooks.pam_config import PamConfig
from coldrank.train.trainer import train

BOTH, REVERSED = ("metacf", "mwuf"), ("mwuf", "metacf")
ARMS = {
    "ranker": lambda: with_metacf(sample_base()),
    "poso": lambda: with_metacf(arms.poso(sample_base())),
    "growing": lambda: with_metacf(growing()),
    "towers and pam": lambda: with_metacf(towers()),
}


def composed(arm, hooks, *, steps=1, fraction=1.0, common_init=True):
    """An arm with both hooks, and PAM where it is the two-tower model."""
    base = ARMS[arm]()
    if base.two_tower and "metacf" not in hooks:  # which reads a sequence that the towers do not
        base = replace(base, features=two_tower().features)
    pam = PamConfig(cuts=(20, 60, 120, 500), cold=1, behaviour=("item_id",), rate=0.1)
    return replace(
        base,
        hooks=(*hooks, "pam") if base.two_tower else hooks,
        pam=pam,
        metacf=replace(base.metacf, fraction=fraction),
        mwuf=replace(base.mwuf, below_views=60, users=8, refresh=2, common_init=common_init),
        train=replace(base.train, steps=steps, log_every=1, checkpoint_every=2),
    )


def losses(config, data, folder, ranks):
    train(config, data, folder, ranks, fresh=False, diff="")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [r["value"] for r in rows if r["metric"] == "loss"]


@pytest.mark.parametrize("hooks", [BOTH, REVERSED])
@pytest.mark.parametrize("arm", ARMS)
def test_both_at_neutral_leave_the_first_loss_bit_for_bit(arm, hooks, data, ranks, tmp_path):
    on = composed(arm, hooks, fraction=0.0, common_init=False)
    found = {name: losses(c, data, tmp_path / name, ranks) for name, c in (("on", on), ("off", composed(arm, ())))}
    assert found["on"] == found["off"]


@pytest.mark.parametrize("arm", ["poso", "growing", "towers and pam"])
def test_a_run_with_all_of_them_goes_on_where_it_stopped(arm, data, ranks, tmp_path):
    whole = losses(composed(arm, BOTH, steps=4), data, tmp_path / "whole", ranks)
    for steps in (2, 4):
        parts = losses(composed(arm, BOTH, steps=steps), data, tmp_path / "parts", ranks)
    assert parts == whole
    files = [(tmp_path / name / "predictions-test.parquet").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]
