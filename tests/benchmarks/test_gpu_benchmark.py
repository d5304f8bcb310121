"""benchmarks/gpu.py where there is no GPU: a small run on the CPU, and the line it ends with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from samples import write_samples
from tiny import sample_base

from coldrank.train.config import to_dict

PROGRAM = Path(__file__).parents[2] / "benchmarks/gpu.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=240)


def test_without_a_gpu_it_ends_with_one_line(tmp_path):
    done = run("--data", tmp_path, "--out", tmp_path / "run")
    assert done.returncode == 1 and not (tmp_path / "run").exists()
    assert done.stderr.count("\n") == 1 and "torch sees no GPU here" in done.stderr


@pytest.mark.slow
def test_a_small_run_on_the_cpu_gives_the_figures(tmp_path):
    data = write_samples(tmp_path / "data")
    config = tmp_path / "config.json"
    config.write_text(json.dumps(to_dict(sample_base())))
    out = tmp_path / "run"
    sizes = ("--config", config, "--steps", 8, "--batch-size", 32)
    done = run("--device", "cpu", "--data", data, "--out", out, *sizes, "--set", "train.log_every=2")
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((out / "gpu.json").read_text())
    assert json.loads(done.stdout[done.stdout.index("{\n") :]) == result
    assert result["table_optimizer"] == "adagrad" and result["precision"] == "bf16" and result["steps"] == 8
    assert result["gpu_memory_gib"] is None and set(result["auc"]) == {"long_view", "like"}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rates = sorted(line["value"] for line in lines if line["metric"] == "samples_per_second")
    assert len(rates) == 4 and rates[0] <= result["samples_per_second"] + 1 <= rates[-1] + 2
    assert result["step_ms"] == pytest.approx(32_000 / result["samples_per_second"], rel=0.02)
