"""Jobs as torchx starts and writes them, with the `.torchxconfig` of the project."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from killing import live, outcome
from samples import write_samples
from tiny import sample_base

from coldrank.configs import base as arms
from coldrank.train import checkpoint
from coldrank.train.component import ranker
from coldrank.train.config import to_dict

ROOT = Path(__file__).parents[2]
POSO = "coldrank.configs.kuairand:poso"


def torchx(*arguments: str) -> subprocess.Popen[str]:
    """`torchx run` in the project's folder, with the environment's programs on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    one = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torchx.cli.main", "run", *arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | one | {"PATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture
def command(tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = arms.poso(sample_base())
    config = replace(config, train=replace(config.train, epochs=6, log_every=4, checkpoint_every=3))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    data = write_samples(tmp_path / "data")
    return ["train", "--config", str(tmp_path / "config.json"), "--data", str(data)]


def process_of_rank(rank: int, out: Path) -> int:
    """The process that trains into a folder as this rank."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words, setting = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            except OSError:  # gone, or somebody else's
                continue
            if str(out).encode() in words.split(b"\0") and f"RANK={rank}".encode() in setting.split(b"\0"):
                return int(folder.name)
    raise AssertionError(f"no process is rank {rank}")


@pytest.mark.slow
def test_a_rank_that_is_killed_is_started_again_and_training_goes_on(command, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert live([*command, "--out", str(whole)], whole, tmp_path / "notes", 2, None).codes == [0, 0]
    job = torchx(
        "-s", "local_cwd", "dist.ddp", "-j", "1x2", "-m", "coldrank.train.main", "--", *command, "--out", str(out)
    )
    while 6 not in checkpoint.steps(out / "checkpoints"):
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.005)
    os.kill(process_of_rank(1, out), signal.SIGKILL)
    said, _ = job.communicate(timeout=240)
    assert job.returncode == 0, said[-3000:]
    assert re.search(r"goes on from step \d+", said)
    ours, theirs = outcome(out), outcome(whole)
    for name, value in theirs.items():
        assert ours[name] == value, name


@pytest.mark.slow
def test_a_mistake_is_told_once_by_a_host(command, tmp_path):
    mistake = [*command, "--out", str(tmp_path / "run"), "--set", "data.fit=past"]
    once = ["dist.ddp", "-j", "1x2", "--env", "PET_MAX_RESTARTS=0", "-m", "coldrank.train.main", "--"]
    job = torchx("-s", "local_cwd", *once, *mistake)
    said, _ = job.communicate(timeout=240)
    assert job.returncode == 1 and said.count("]:coldrank train: ") == 1, said[-3000:]


AWKWARD = """it's "a, b" [c] {d} $e ${app_id} * ; \\n"""


@pytest.mark.tried("ranks", "several fields after one --set, through torchx", "all of them, whatever their values hold")
@pytest.mark.slow
def test_several_fields_reach_the_ranks_as_they_were_given(command, tmp_path):
    out = tmp_path / "a run"
    fields = [f"name={AWKWARD}", "train.steps=1", 'optim.tables.lr_scale={"user": 0.5, "item": 0.25}', "seed=5"]
    job = torchx(
        *("-s", "local_cwd", "train/component.py:ranker", "-j", "1x1", "--max_restarts", "0"),
        *(*command[1:], "--out", str(out), "--", "--set", *fields, "--set=data.eval_batch_size=64"),
    )
    said, _ = job.communicate(timeout=240)
    assert job.returncode == 0, said[-3000:]
    config = json.loads((out / "config.json").read_text())
    assert config["name"] == AWKWARD and config["seed"] == 5 and config["train"]["steps"] == 1
    assert (
        config["optim"]["tables"]["lr_scale"] == {"user": 0.5, "item": 0.25} and config["data"]["eval_batch_size"] == 64
    )


@pytest.mark.tried("ranks", "--set twice, through torchx", "torchx refuses; the page says to write one --set")
@pytest.mark.slow
def test_torchx_itself_refuses_an_option_twice():
    job = ["train/component.py:ranker", "--config", POSO, "--data", "/mnt/data", "--out", "/mnt/runs/poso"]
    process = torchx("--dryrun", "-s", "slurm", *job, "--", "--set", "seed=1", "--set", "seed=2")
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 2 and "Repeated Command Line Arguments: ['--set']" in said


def test_a_job_that_could_not_start_is_refused_before_it_is_submitted(tmp_path):
    with pytest.raises(SystemExit, match=r"ranker: --config .* has no arm 'pos'"):
        ranker(config="coldrank.configs.kuairand:pos", data=str(tmp_path), out="run")
    with pytest.raises(SystemExit, match="ranker: .* not a prepared data folder"):
        ranker(config=POSO, data=str(tmp_path), out="run")
    job = ranker("--set", "seed=2", config=POSO, data="/elsewhere", out="runs/poso", j="1x4", cpu=8)
    assert job.name == "poso" and job.roles[0].env["OMP_NUM_THREADS"] == "2"
