"""Checkpoints that have suffered, and runs that were cut off."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from samples import write_samples
from tiny import sample_base

from coldrank.configs import base as arms
from coldrank.train import checkpoint
from coldrank.train.data.batches import DataFolder
from coldrank.train.distributed import process_group
from coldrank.train.errors import UserError
from coldrank.train.trainer import train


@pytest.fixture(scope="module")
def ranks():
    with process_group() as ranks:
        yield ranks


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return DataFolder.open(write_samples(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def config():
    config = arms.poso(sample_base())
    return replace(config, train=replace(config.train, epochs=2, log_every=4, checkpoint_every=3))


@pytest.fixture(scope="module")
def whole(data, ranks, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(config, data, folder, ranks, fresh=False, diff="")
    return folder


def lines(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [r for r in rows if r["metric"] != "samples_per_second"]


def cut(data, ranks, config, folder, steps):
    """A run whose process is gone after some steps: its last checkpoint is of an earlier one."""
    short = replace(config, train=replace(config.train, steps=steps, keep_checkpoints=9))
    train(short, data, folder, ranks, fresh=False, diff="")
    for step in checkpoint.steps(folder / "checkpoints"):
        if step % config.train.checkpoint_every:
            shutil.rmtree(folder / f"checkpoints/step-{step}")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (None, None),
        (lambda p: truncate(next(p.glob("__0_*"))), r"__0_0.distcp has .* bytes, .* were written"),
        (lambda p: flip(next(p.glob("__0_*"))), "__0_0.distcp is not what was written"),
        (lambda p: (p / ".metadata").unlink(), ".metadata is missing"),
        (lambda p: truncate(p / "progress.json"), "progress.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_used(
    data, ranks, config, whole, tmp_path, capsys, harm, reason
):
    cut(data, ranks, config, tmp_path / "run", 8)
    assert checkpoint.steps(tmp_path / "run/checkpoints") == [3, 6]
    if harm:
        harm(tmp_path / "run/checkpoints/step-6")
    with (tmp_path / "run/metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 8, "per')  # killed while it wrote
    train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    captured = capsys.readouterr()
    said = captured.err + captured.out
    assert f"goes on from step {3 if harm else 6}" in said
    if reason:
        assert re.search(rf"refused: .*step-6: damaged: {reason}", said)
    assert lines(tmp_path / "run") == lines(whole)
    ours, theirs = (f / "predictions-test.parquet" for f in (tmp_path / "run", whole))
    assert ours.read_bytes() == theirs.read_bytes()


def test_without_a_checkpoint_that_can_be_used_nothing_is_overwritten(data, ranks, config, tmp_path):
    cut(data, ranks, config, tmp_path / "run", 4)
    truncate(tmp_path / "run/checkpoints/step-3/progress.json")
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"step-3: damaged: .*; --fresh starts over"):
        train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_what_was_being_written_is_no_checkpoint_and_the_last_few_are_kept(data, ranks, config, whole, tmp_path):
    assert len(checkpoint.steps(whole / "checkpoints")) == config.train.keep_checkpoints
    partial = tmp_path / "checkpoints/step-7.partial"
    shutil.copytree(next((whole / "checkpoints").iterdir()), partial)
    assert checkpoint.steps(tmp_path / "checkpoints") == []
