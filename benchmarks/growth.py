"""How the cost of a training step grows with the work: one dimension at a time, the others at their centre.

    python benchmarks/growth.py --out growth.json
    python benchmarks/figures.py growth --results growth.json --out docs/growth.svg

The model: 4 ids with tables 16 wide, attention over a history of items, MMoE of experts [128, 64], towers [32], POSO
everywhere. Ids are random, so that every lookup is far from the last.

CPU time of a step per sample, one thread, the least of `--steps`. With two ranks (gloo on this machine) it is the sum
over the ranks, half of the batch each. The slope is that of log(time per sample) over log(size) between the last two
sizes: 0, the cost of a sample stays; 1, it grows in proportion.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from peak import peak_mib
from tabulate import tabulate
from tqdm import tqdm

from coldrank.configs import base as parts
from coldrank.data.batches import KEYS, DataFolder
from coldrank.data.read import Raw
from coldrank.models.features import Feature, Table
from coldrank.models.heads import Binary
from coldrank.models.ranker import Ranker
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import process_group
from coldrank.train.run import build
from coldrank.train.sections import DataConfig, OptimConfig, TablesConfig, TrainConfig

IDS = {"user_id": "user", "item_id": "item", "c0": "c0", "c1": "c1"}
SIZES = {
    "rows": (10_000, 100_000, 1_000_000, 10_000_000),
    "length": (10, 30, 100, 300, 1_000),
    "batch": (256, 1_024, 4_096, 16_384, 32_768),
    "experts": (2, 4, 8, 16, 32),
    "tasks": (1, 2, 4, 8, 16),
    "ranks": (1, 2),
}
_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Work:
    """What a step has to do."""

    rows: int = 100_000
    """Rows of each table."""
    length: int = 50
    """Events in the history."""
    batch: int = 2_048
    """Samples of all ranks together."""
    experts: int = 4
    """Number of experts."""
    tasks: int = 2
    """Number of tasks."""
    ranks: int = 1
    """Number of ranks."""


def arm(work: Work) -> RunConfig:
    """The model of a size."""
    roles = {"user_id": "user", "item_id": "item"}
    ids = (Feature(name=n, role=roles.get(n, "context"), kind="id", table=table) for n, table in IDS.items())  # type: ignore[arg-type]
    history = parts.history(work.length, {"hist_item_id": "item"})
    config = RunConfig(
        name="growth",
        tasks={f"t{i}": Binary() for i in range(work.tasks)},
        features=(*ids, *history, parts.personalization_code("user_views", dim=8)),
        tables=tuple(Table(name=t, rows=work.rows, dim=16, mapping="identity") for t in IDS.values()),
        model=Ranker(experts=work.experts, expert_hidden=(128, 64), tower_hidden=(32,)),
        data=DataConfig(fit=("train",), batch_size=work.batch),
        optim=OptimConfig(tables=TablesConfig(kind="adagrad")),
        train=TrainConfig(threads=1, checkpoint_every=0),
    )
    return parts.poso(config)


def samples(work: Work, size: int, rng: np.random.Generator) -> Raw:
    """Random columns of `size` samples, every history full: int64, labels float32."""
    raw: Raw = {name: rng.integers(1, work.rows, size) for name in {*IDS, *KEYS}}
    raw["user_views"] = rng.geometric(0.02, size)
    offsets = np.arange(size + 1, dtype=np.int64) * work.length
    raw["hist_item_id"] = rng.integers(1, work.rows, size * work.length), offsets
    return raw | {f"label_t{i}": (rng.random(size) < 0.3).astype(np.float32) for i in range(work.tasks)}


def step_times(work: Work, steps: int) -> list[float]:
    """CPU seconds of this rank's steps, all its threads."""
    with process_group() as ranks:
        run = build(arm(work), DataFolder(Path(), {"columns": []}), ranks)
        rng = np.random.default_rng(ranks.rank)
        # Not the same rows again in the next step, which would find them in the cache.
        ready = [run.make(samples(work, work.batch // ranks.world_size, rng)) for _ in range(4)]
        taken = []
        for n in range(_WARM_UP + steps):
            start = _cpu()
            run.optimizers.begin_step(n, _WARM_UP + steps)
            run.model(ready[n % len(ready)]).loss.backward()
            run.optimizers.end_step()
            taken.append(_cpu() - start)
    return taken[_WARM_UP:]


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(work: Work, steps: int) -> dict[str, float]:
    """What a step takes, measured in processes of its own.

    microseconds: CPU time of a step per sample, all ranks together. mib: the largest peak of a rank's resident memory.
    """
    program = [
        str(Path(__file__).resolve()),
        "--one",
        json.dumps([getattr(work, f) for f in SIZES]),
        "--steps",
        str(steps),
    ]
    launch = [sys.executable, *program]
    if work.ranks > 1:
        launch = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={work.ranks}",
            *program,
        ]
    ended = subprocess.run(
        launch,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise SystemExit(f"{work}: {ended.stderr.strip().splitlines()[-1]}")
    answers = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("[")]
    per_step = min(map(sum, zip(*(times for times, _ in answers), strict=True)))
    return {"microseconds": 1e6 * per_step / work.batch, "mib": max(mib for _, mib in answers)}


def slope(sizes: list[int], values: list[float]) -> float:
    """The slope of log(value) over log(size) between the last two."""
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


def main() -> None:
    """Prints a line per size, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="measured steps of each size (default: %(default)s)")
    parser.add_argument("--only", help=f"some of {', '.join(SIZES)}")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        work = Work(*json.loads(args.one))
        times = step_times(work, args.steps)
        print(json.dumps([times, peak_mib()]), flush=True)
        return
    curves: dict[str, dict[str, Any]] = {}
    names = args.only.split(",") if args.only else list(SIZES)
    for name in tqdm(names, desc="dimensions"):
        sizes = list(SIZES[name])
        measured = [measure(replace(Work(), **{name: size}), args.steps) for size in sizes]
        curve = {key: [round(m[key], 2) for m in measured] for key in ("microseconds", "mib")}
        curves[name] = {"sizes": sizes, **curve, "slope": round(slope(sizes, curve["microseconds"]), 2)}
        print(f"{time.strftime('%H:%M:%S')} {name} {curves[name]}", file=sys.stderr)
    rows = [
        [n, f"{size:,}", f"{us:.1f}", f"{mib:,.0f}"]
        for n, c in curves.items()
        for size, us, mib in zip(c["sizes"], c["microseconds"], c["mib"], strict=True)
    ]
    print(tabulate(rows, ["dimension", "size", "CPU µs per sample", "peak MiB of a rank"], tablefmt="github"))
    if args.out:
        args.out.write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    main()
