"""How a step is computed, on two gloo ranks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launch import launch
from samples import write_samples
from tiny import sample_base, with_optim

from coldrank.configs import base as arms
from coldrank.train.config import RunConfig, to_dict

STEPS = 8


def write(config: RunConfig, path: Path) -> str:
    path.write_text(json.dumps(to_dict(config)))
    return str(path)


@pytest.mark.slow
def test_micro_batches_clipping_and_decay_on_two_ranks_are_those_of_one(tmp_path):
    """Rank 0 alone takes the whole batches at once, two ranks take theirs in three micro-batches each.

    Tolerance: as for plain steps, ten times the largest difference found (2e-6 of a tensor's largest element).
    """
    data = str(write_samples(tmp_path / "data"))
    config = arms.poso(sample_base())
    tables = {"clip_value": 3e-5, "weight_decay": 0.5, "lr_scale": {"user": 0.25}, "warmup_steps": 4, "decay": "cosine"}
    config = with_optim(config, tables=tables, dense={"clip_norm": 0.05, "weight_decay": 1.0})
    results = {}
    for ranks, count in ((1, 1), (2, 3)):
        out = tmp_path / str(ranks)
        out.mkdir()
        path = write(replace(config, train=replace(config.train, accumulate=count)), out / "c.json")
        command = [str(Path(__file__).with_name("steps.py")), "--config", path, "--data", data]
        launch(ranks, *command, "--out", str(out), "--steps", str(STEPS))
        results[ranks] = torch.load(out / "c.pt")
    one, two = results[1], results[2]
    assert one.keys() == two.keys() and len(one["loss"]) == STEPS
    for key, value in one.items():
        assert (two[key] - value).abs().max() <= 2e-5 * value.abs().max(), key


@pytest.mark.slow
def test_two_pipelined_ranks_train_as_two_plain_ones(tmp_path):
    """Bit for bit, in the losses and in the scores of the trained model."""
    data = str(write_samples(tmp_path / "data"))
    config = arms.poso(sample_base())
    config = replace(config, model=replace(config.model, dropout=0.2))
    results = []
    for pipeline in ("off", "on"):
        path = write(config, tmp_path / "c.json")
        out = tmp_path / pipeline
        command = ["-m", "coldrank.train.main", "train", "--config", path, "--data", data, "--out", str(out)]
        launch(2, *command, "--set", "train.epochs=2", "--set", f"train.pipeline={pipeline}")
        lines = [x for x in (out / "metrics.jsonl").read_text().splitlines() if "samples_per_second" not in x]
        results.append((lines, (out / "predictions-test.parquet").read_bytes()))
    assert results[0] == results[1] and len(results[0][0]) > 10
