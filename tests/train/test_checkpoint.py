"""Checkpoints that have suffered, disks that are full, and runs that were cut off or told to stop."""

import json
import os
import re
import resource
import shutil
import signal
from dataclasses import asdict, replace

import pytest
from tiny import sample_base

from coldrank.configs import base as arms
from coldrank.data.errors import Preempted, UserError
from coldrank.train import checkpoint
from coldrank.train.evaluate import predict
from coldrank.train.lock import Holder
from coldrank.train.recent import Recent
from coldrank.train.run_folder import RunFolder
from coldrank.train.trainer import train


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


def same(folder, whole):
    """Whether two runs ended alike."""
    ours, theirs = (f / "predictions-test.parquet" for f in (folder, whole))
    return lines(folder) == lines(whole) and ours.read_bytes() == theirs.read_bytes()


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
    assert same(tmp_path / "run", whole)


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


def test_sigterm_ends_the_step_and_writes_a_checkpoint(data, ranks, config, whole, tmp_path, monkeypatch):
    add, before = Recent.add, signal.getsignal(signal.SIGTERM)

    def told_to_stop(recent, *step):
        add(recent, *step)
        if (
            recent.samples == 2 * config.data.batch_size
        ):  # in the second step, and the second after each line of metrics
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Recent, "add", told_to_stop)
        with pytest.raises(Preempted, match="stopped by SIGTERM after step 3"):
            train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    assert checkpoint.steps(tmp_path / "run/checkpoints") == [3] and signal.getsignal(signal.SIGTERM) is before
    train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    assert same(tmp_path / "run", whole)


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(data, ranks, config, whole, tmp_path):
    cut(data, ranks, config, tmp_path / "run", 4)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Stands in for the disk: no file may grow beyond what all files but the checkpoints' need.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"step-6: cannot be written \(.*File too large"):
            train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint.steps(tmp_path / "run/checkpoints") == [3]
    train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    assert same(tmp_path / "run", whole)
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_what_a_kill_leaves_at_the_start_is_known_for_a_run_s(config, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    monkeypatch.setattr("coldrank.train.run_folder.to_dict", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        folder.start(config, "")
    assert [p.name for p in folder.path.iterdir()] == ["diff.txt"]
    folder.check(None)
    (folder.path / "notes.txt").touch()
    with pytest.raises(UserError, match="is no run folder"):
        folder.check(None)


def test_nothing_goes_on_from_a_run_that_is_half_removed(config, whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "run")
    folder, left = RunFolder(tmp_path / "run"), []

    def cut_off(path):
        left.extend(checkpoint.steps(folder.checkpoints))
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors=False: ignore_errors or cut_off(path))
    with pytest.raises(KeyboardInterrupt):
        folder.clear()
    monkeypatch.undo()
    assert left == [] and (folder.path / "config.json").exists()
    folder.check(None)
    folder.clear()
    assert not list(folder.path.iterdir())


@pytest.mark.tried(
    "configs and runs", "a training that stood still while another took its run over", "stops, writes nothing"
)
def test_who_has_lost_the_lock_writes_no_more(data, ranks, tmp_path, monkeypatch):
    config = sample_base()
    config = replace(config, train=replace(config.train, log_every=2, checkpoint_every=3, steps=9))
    add, steps = Recent.add, []

    def taken_over_in_step_5(recent, *step):
        add(recent, *step)
        steps.append(1)
        if len(steps) == 5:
            (held,) = (tmp_path / "run/lock").iterdir()
            new = replace(Holder.me(), host="node-7")
            held.unlink()
            held.with_name(new.token).write_text(json.dumps(asdict(new)))

    monkeypatch.setattr(Recent, "add", taken_over_in_step_5)
    with pytest.raises(
        UserError, match=r"has lost its lock \(process \d+ on node-7, .* has taken it\) and writes no more"
    ):
        train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == {2, 4}, "not 6"
    assert [p.name for p in (tmp_path / "run/checkpoints").glob("step-?")] == ["step-3"], "no step-6"
    assert len(os.listdir(tmp_path / "run/lock")) == 1, "the other's lock stays"
    assert not (tmp_path / "run/summary.json").exists()


def test_who_has_lost_the_lock_in_the_evaluation_leaves_the_predictions_alone(data, ranks, tmp_path, monkeypatch):
    config = replace(sample_base(), train=replace(sample_base().train, steps=2))

    def taken_over(*arguments):
        (held,) = (tmp_path / "run/lock").iterdir()
        held.unlink()
        return predict(*arguments)

    monkeypatch.setattr("coldrank.train.evaluate.predict", taken_over)
    with pytest.raises(UserError, match=r"has lost its lock \(it was removed\) and writes no more"):
        train(config, data, tmp_path / "run", ranks, fresh=False, diff="")
    assert not list((tmp_path / "run").glob("predictions*")) and not (tmp_path / "run/summary.json").exists()
