"""One training on a GPU: bf16, TorchRec's pipeline, fused table optimizer. Prints samples/s, step time and memory.

    python benchmarks/gpu.py --data DATA --out runs/gpu --config coldrank.configs.kuairand:poso --batch-size 8192
    python benchmarks/gpu.py --data DATA --out runs/gpu --set optim.tables.kind=adagrad

Has not been run on a GPU yet. `--device cpu` runs the same on the CPU, where Adagrad takes the place of Adam for the
tables. The run folder is that of `coldrank train`; `gpu.json` in it holds the figures, with the hardware named.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import process_group
from coldrank.train.load import load
from coldrank.train.trainer import train


def main() -> None:
    """Trains, evaluates and prints the figures. Ends with one line where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared data")
    parser.add_argument("--out", type=Path, required=True, help="run folder; a run that is there is replaced")
    parser.add_argument("--config", default="coldrank.configs.kuairand:poso", help="arm")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=8192)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="changes a config field")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args = parser.parse_args()
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: torch sees no GPU here; `make install DEVICE=cuda` on a machine that has one")
    try:
        config = load(args.config, [*settings(args.steps, args.batch_size, args.device), *args.set])
        result = measure(config, DataFolder.open(args.data), args.out)
    except UserError as error:
        sys.exit(f"benchmarks/gpu.py: {error}")
    text = json.dumps(result, indent=1)
    print(text)
    partial = args.out / "gpu.json.partial"
    partial.write_text(text + "\n")
    os.replace(partial, args.out / "gpu.json")


def settings(steps: int, batch_size: int, device: str) -> list[str]:
    """Config fields: bf16, the pipeline, fused Adam for the tables (on the CPU: Adagrad), ten lines of metrics."""
    kind = "adam" if device == "cuda" else "adagrad"
    fields = {"precision": "bf16", "pipeline": "on", "steps": steps, "log_every": max(1, steps // 10)}
    of_training = [f"train.{name}={value}" for name, value in fields.items()]
    return [*of_training, f"data.batch_size={batch_size}", f"optim.tables.kind={kind}"]


def measure(config: RunConfig, data: DataFolder, out: Path) -> dict[str, Any]:
    """Trains to the end in `out`; what it took.

    samples_per_second: the median of the stretches between two lines of metrics.jsonl, the first left out.
    gpu_memory_gib: the most that tensors of this process took on the GPU.
    """
    with process_group() as ranks:
        rows = train(config, data, out, ranks, fresh=True, diff="")
        gpu = ranks.device.type == "cuda"
        memory = torch.cuda.max_memory_allocated(ranks.device) if gpu else None
        hardware = torch.cuda.get_device_name(ranks.device) if gpu else platform.machine()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rates = [line["value"] for line in lines if line["metric"] == "samples_per_second"]
    rate = statistics.median(rates[1:] or rates)
    return {
        "hardware": hardware,
        "versions": {name: version(name) for name in ("torch", "torchrec", "coldrank")} | {"cuda": torch.version.cuda},
        "arm": config.name,
        "precision": config.train.precision,
        "table_optimizer": config.optim.tables.kind,
        "batch_size": config.data.batch_size,
        "steps": config.train.steps,
        "samples_per_second": round(rate),
        "step_ms": round(1000 * config.data.batch_size / rate, 2),
        "gpu_memory_gib": None if memory is None else round(memory / 2**30, 3),
        "auc": {r["task"]: r["value"] for r in rows if (r["cohort"], r["metric"]) == ("all", "auc")},
    }


if __name__ == "__main__":
    main()
