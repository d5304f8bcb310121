"""What a GPU has to do as the CPU does. `make test-gpu` runs those with `cuda` in their names; they have not been run
yet.

Each but those of what a CPU has not is run on the CPU as well, against itself, so that what is left to fail on a GPU is
the GPU's own.
"""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch
from launch import launch
from samples import write_samples
from tiny import sample_base, with_optim

from coldrank.configs import base as arms
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.distributed.config import Memory

ROOT = Path(__file__).parents[2]
HALVES = ROOT / "tests/distributed/halves.py"
STEPS = ROOT / "tests/distributed/steps.py"
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees no two GPUs")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_GPU)]
pytestmark = pytest.mark.slow


def written(config: RunConfig, path: Path) -> Path:
    path.write_text(json.dumps(to_dict(config)))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_samples(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def poso(tmp_path_factory) -> Path:
    """POSO with one rate of every kind, without dropout: devices draw their own."""
    config = arms.poso(sample_base())
    config = with_optim(config, tables={"weight_decay": 1e-3}, dense={"clip_norm": 1.0}, warmup_steps=3)
    return written(config, tmp_path_factory.mktemp("poso") / "poso.json")


@pytest.fixture(scope="module")
def of_cpu(poso, data, tmp_path_factory) -> dict[str, torch.Tensor]:
    """Losses, weights and states of the optimizers after eight steps of one rank on the CPU."""
    out = tmp_path_factory.mktemp("cpu")
    launch(1, STEPS, "--config", poso, "--data", data, "--out", out, "--steps", 8)
    return torch.load(out / "poso.pt")


def compare(path: Path, wanted: dict[str, torch.Tensor]) -> None:
    """Tolerances leave room for other orders of sums, and for Adam, which turns the rounding of a small gradient into a
    step."""
    found = torch.load(path, map_location="cpu")
    assert found.keys() == wanted.keys()
    torch.testing.assert_close(found["loss"], wanted["loss"], rtol=1e-4, atol=0)
    for name, value in wanted.items():
        assert (found[name] - value).abs().max() <= 1e-2 * value.abs().max(), name


@pytest.mark.parametrize("device", DEVICES)
def test_learns_what_the_cpu_learns(device, poso, data, of_cpu, tmp_path):
    launch(1, STEPS, "--config", poso, "--data", data, "--out", tmp_path, "--steps", 8, device=device)
    compare(tmp_path / "poso.pt", of_cpu)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=TWO_GPUS)])
def test_two_ranks_learn_what_one_learns(device, poso, data, of_cpu, tmp_path):
    """By nccl on GPUs, by gloo on the CPU."""
    launch(2, STEPS, "--config", poso, "--data", data, "--out", tmp_path, "--steps", 8, device=device)
    compare(tmp_path / "poso.pt", of_cpu)


@pytest.mark.parametrize("device", DEVICES)
def test_bf16_by_the_pipeline_and_resumed_scores_as_uninterrupted(device, data, tmp_path):
    config = arms.poso(sample_base())
    config = with_optim(config, tables={"kind": "adam" if device == "cuda" else "adagrad"})
    train = replace(config.train, precision="bf16", pipeline="on", steps=10)
    arm = written(replace(config, train=train), tmp_path / "arm.json")
    scores = []
    for name, stops in (("whole", (10,)), ("cut", (4, 10))):
        command = ["-m", "coldrank.train.main", "train", "--config", arm, "--data", data, "--out", tmp_path / name]
        for steps in stops:
            # `steps` is part of the schedule: without decay the first four do not depend on it.
            launch(1, *command, "--set", f"train.steps={steps}", device=device)
        scores.append(pl.read_parquet(tmp_path / name / "predictions-test.parquet")["prob_long_view"].to_torch())
        assert json.loads((tmp_path / name / "run.json").read_text())["device"] == device
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_benchmark_gives_its_figures(device, poso, data, tmp_path):
    command = [ROOT / "benchmarks/gpu.py", "--device", device, "--data", data, "--out", tmp_path / "run"]
    command += ["--config", poso, "--steps", 8, "--batch-size", 64, "--set", "optim.tables.weight_decay=0"]
    launch(1, *command, device=device)
    result = json.loads((tmp_path / "run/gpu.json").read_text())
    assert result["samples_per_second"] > 0 and result["auc"].keys() == {"long_view", "like"}
    assert (result["gpu_memory_gib"] is not None) == (device == "cuda")


def of_memory(memory: Memory, decay: float) -> RunConfig:
    config = with_optim(arms.poso(sample_base()), tables={"weight_decay": decay}, warmup_steps=3)
    return replace(config, sharding=replace(config.sharding, default_memory=memory))


@pytest.mark.parametrize("memory", [pytest.param("uvm", marks=NO_GPU), pytest.param("uvm_caching", marks=NO_GPU)])
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=TWO_GPUS)])
def test_tables_in_the_hosts_memory_learn_on_cuda_what_the_cpu_learns(memory, ranks, data, tmp_path):
    """No row decays in a cache, elsewhere it does."""
    decay = 1e-3 if memory == "uvm" else 0.0
    for name, of in (("cpu", "auto"), ("cuda", memory)):
        arm = written(of_memory(of, decay), tmp_path / f"{name}.json")
        command = [STEPS, "--config", arm, "--data", data, "--out", tmp_path, "--steps", 8]
        launch(1 if name == "cpu" else ranks, *command, device=name)
    compare(tmp_path / "cuda.pt", torch.load(tmp_path / "cpu.pt"))


@pytest.mark.parametrize("memory", [pytest.param("uvm", marks=NO_GPU), pytest.param("uvm_caching", marks=NO_GPU)])
def test_a_run_with_tables_in_the_hosts_memory_goes_on_on_cuda(memory, data, tmp_path):
    """A checkpoint has what the cache holds, and what is loaded is what is read, also with another choice."""
    config = of_memory(memory, 0.0)
    arm = written(replace(config, train=replace(config.train, steps=10)), tmp_path / "arm.json")
    scores = []
    for name, parts in (("whole", {10: memory}), ("cut", {4: memory, 7: "hbm", 10: memory})):
        command = ["-m", "coldrank.train.main", "train", "--config", arm, "--data", data, "--out", tmp_path / name]
        for steps, of in parts.items():
            launch(1, *command, "--set", f"train.steps={steps}", f"sharding.default_memory={of}", device="cuda")
        scores.append(pl.read_parquet(tmp_path / name / "predictions-test.parquet")["prob_long_view"].to_torch())
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("every", [pytest.param(1, marks=TWO_GPUS), pytest.param(2, marks=TWO_GPUS)])
def test_replicas_learn_on_cuda_what_the_mean_of_two_models_does(every, data, tmp_path):
    """As tests/distributed/test_replicas.py holds it of four ranks on the CPU. halves.py says what that is, and writes
    the arm."""
    launch(1, HALVES, data, tmp_path, every)
    launch(2, STEPS, "--config", tmp_path / "two.json", "--data", data, "--out", tmp_path, "--steps", 3, device="cuda")
    compare(tmp_path / "two.pt", torch.load(tmp_path / "halves.pt"))


@NO_GPU
def test_fbgemm_has_no_tables_on_an_ssd_with_cuda_either():
    """Why `sharding.memory` has `ssd` for plans alone. Where this fails, it could be trained."""
    import fbgemm_gpu.split_table_batched_embeddings_ops_training  # noqa: F401

    with pytest.raises(RuntimeError, match="EmbeddingRocksDBWrapper"):
        _ = torch.classes.fbgemm.EmbeddingRocksDBWrapper


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_make_says_that_there_is_no_gpu():
    done = subprocess.run(["make", "-s", "test-gpu"], check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "no GPU here" in done.stdout + done.stderr
