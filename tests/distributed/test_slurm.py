"""Jobs of two hosts on Slurm, as `torchx run -s slurm` submits them: one is left alone; the others end as it did."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import slurm
from killing import outcome
from samples import write_samples
from test_torchx import process_of_rank
from tiny import sample_base

from coldrank.configs import base as arms
from coldrank.train import checkpoint
from coldrank.train.config import to_dict

ROOT = Path(__file__).parents[2]
ONE = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
STEPS = 180
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[slurm.Slurm]:
    if reason := slurm.missing():
        pytest.skip(reason)
    with slurm.Slurm(tmp_path_factory.mktemp("s")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def submit(cluster, tmp_path_factory) -> Callable[[str], tuple[str, Path]]:
    """Submits a job of two hosts with a rank each: name -> its number and its run folder."""
    folder = tmp_path_factory.mktemp("jobs")
    config = arms.poso(sample_base())
    config = replace(config, train=replace(config.train, epochs=STEPS // 6, log_every=4, checkpoint_every=20))
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    data = write_samples(folder / "data")
    path = f"{Path(sys.executable).parent}{os.pathsep}{cluster.environment['PATH']}"

    def submit(name: str) -> tuple[str, Path]:
        port = str(slurm.free_ports(1)[0])
        job = ["-j", "2x1", "--cpu", "1", "--rdzv_port", port, "--config", f"{folder}/config.json"]
        job += ["--data", str(data), "--out", f"{folder}/{name}"]
        torchx = [sys.executable, "-m", "torchx.cli.main", "run", "-s", "slurm", "--workspace", ""]
        done = subprocess.run(
            [*torchx, f"{ROOT}/train/component.py:ranker", *job],
            check=False,
            cwd=folder,
            env=cluster.environment | ONE | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
        )
        number = re.search(r"slurm://torchx/(\d+)", done.stdout)
        assert done.returncode == 0 and number, done.stdout + done.stderr
        return number[1], folder / name

    return submit


@pytest.fixture(scope="module")
def left_alone(cluster, submit) -> Path:
    """The run folder of a job that nothing happened to."""
    job, out = submit("whole")
    ended(cluster, job, out)
    return out


def ended(cluster: slurm.Slurm, job: str, out: Path) -> str:
    """Waits for the end of a job, which is to succeed; all that it has printed."""
    over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
    slurm.wait(lambda: bool(cluster.states(job)) and cluster.states(job) <= over, 300)
    said = "".join(file.read_text() for file in sorted(out.parent.glob(f"slurm-{job}*")))
    assert cluster.states(job) == {"COMPLETED"}, said[-9000:]
    return said


def test_a_job_of_two_hosts_trains_to_its_end(left_alone):
    rows = [json.loads(line) for line in (left_alone / "metrics.jsonl").read_text().splitlines()]
    facts = json.loads((left_alone / "run.json").read_text())
    assert facts["finished"] and facts["world_size"] == 2 and facts["steps"] == STEPS
    auc = {
        row["task"]: row["value"]
        for row in rows
        if (row["metric"], row["cohort"], row["split"]) == ("auc", "all", "test")
    }
    assert auc["long_view"] > 0.8


def test_a_job_that_is_preempted_goes_on_when_it_is_started_again(cluster, submit, left_alone):
    job, out = submit("preempted")
    slurm.wait(lambda: bool(checkpoint.steps(out / "checkpoints")), 120)
    cluster.call("scontrol", "requeue", job)
    said = ended(cluster, job, out)
    stopped = re.search(r"stopped by SIGTERM after step (\d+)", said)
    assert stopped and int(stopped[1]) < STEPS and f"goes on from step {stopped[1]}" in said
    assert outcome(out) == outcome(left_alone)


def test_a_job_that_loses_a_host_puts_itself_back_into_the_queue(cluster, submit, left_alone):
    job, out = submit("lost")
    slurm.wait(lambda: bool(checkpoint.steps(out / "checkpoints")), 120)
    rank = process_of_rank(1, out)
    for process in (parent(rank), rank):
        os.kill(process, signal.SIGKILL)
    said = ended(cluster, job, out)
    assert re.search(r"goes on from step \d+", said)
    assert outcome(out) == outcome(left_alone)


def parent(process: int) -> int:
    """The process that started another."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"PPid:\t(\d+)", status)[1])
