"""What ranks exchange in a step for tables that a history reads: in bags beside un-pooled, counted on two real ranks.

    python benchmarks/exchange.py

The model is that of `growth.py`: 4 ids, a history of 50 items, of which the candidate is one too. Two gloo ranks on
this machine; every collective of the steps after the first few is seen by a dispatch mode, and what a rank sends to the
other is counted: ids and lengths, embeddings, and their gradients. Gradients of the dense part are not.

popularity: uniform, every item as likely as any other; log: the n-th in popularity is read 1 / n as often as the first,
so that a batch holds some items many times.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from growth import IDS, Work, arm, samples
from tabulate import tabulate
from torch.utils._python_dispatch import TorchDispatchMode

from coldrank.data.batches import DataFolder
from coldrank.data.read import Raw
from coldrank.train.distributed.config import Sequences, ShardingConfig
from coldrank.train.distributed.ranks import process_group
from coldrank.train.run import build

_WARM_UP = 2
SHARDINGS = ("row_wise", "table_wise")
POPULARITIES = ("uniform", "log")
WAYS: tuple[Sequences, ...] = ("bags", "unpooled")


class Sent(TorchDispatchMode):
    """Counts the bytes that this rank sends to others, by collective.

    Those of torch.distributed that TorchRec calls; another one raises KeyError, lest it be left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            name = func._schema.name.partition("::")[2]
            self.bytes[name] += self._sent(name, args)
        return func(*args, **(kwargs or {}))

    def _sent(self, name: str, args: Any) -> int:
        if name == "alltoall_base_":
            _, given, _, _, splits = args[:5]
            row = given.nbytes // max(1, len(given))
            kept = splits[self.rank] if splits else len(given) // self.ranks
            return int(given.nbytes - kept * row)
        if name == "_reduce_scatter_base_":
            return int(args[1].nbytes * (self.ranks - 1) // self.ranks)
        if name == "_allgather_base_":
            return int(args[1].nbytes * (self.ranks - 1))
        return {"allreduce_": 0, "barrier": 0, "broadcast_": 0}[name]  # of the dense part


def drawn(popularity: str, work: Work, size: int, rng: np.random.Generator) -> Raw:
    """Samples whose items, candidates and histories, are of a popularity."""
    raw = samples(work, size, rng)
    if popularity == "log":
        some = lambda count: (work.rows ** rng.random(count)).astype(np.int64)
        values, offsets = raw["hist_item_id"]
        raw |= {"item_id": some(size), "hist_item_id": (some(len(values)), offsets)}
    return raw


def counted(sharding: str, way: Sequences, popularity: str, work: Work, steps: int) -> dict[str, float]:
    """A step's bytes that this rank sends, mean of some steps, and their CPU time, least of them, in ms."""
    how = ShardingConfig(tables=dict.fromkeys(IDS.values(), sharding), sequences=way)  # type: ignore[arg-type]
    with process_group() as ranks:
        run = build(replace(arm(work), sharding=how), DataFolder(Path(), {"columns": []}), ranks)
        assert run.plan.sequences == way
        rng = np.random.default_rng(ranks.rank)
        batches = [
            run.make(drawn(popularity, work, work.batch // ranks.world_size, rng)) for _ in range(_WARM_UP + steps)
        ]
        sent, times = Counter[str](), []
        for n, batch in enumerate(batches):
            start = time.process_time()
            run.optimizers.begin_step(n, len(batches))
            with Sent() as mode:
                run.model(batch).loss.backward()
            run.optimizers.end_step()
            times.append(time.process_time() - start)
            if n >= _WARM_UP:
                sent += mode.bytes
    assert sum(sent.values())
    return {"bytes": sum(sent.values()) / steps, "ms": 1000 * min(times[_WARM_UP:])}


def measured(case: list[str]) -> dict[str, float]:
    """The counts of the first of two ranks."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command = [sys.executable, *launcher, "--rdzv-endpoint=localhost:0", __file__, "--case", *case]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    result: dict[str, float] = json.loads(next(x for x in done.stdout.splitlines() if x.startswith("{")))
    return result


def main() -> None:
    """Prints a row for each sharding and popularity."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="of each table")
    parser.add_argument("--batch", type=int, default=2_048, help="samples of both ranks together")
    parser.add_argument("--length", type=int, default=50, help="of the history")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    work = Work(rows=args.rows, batch=args.batch, length=args.length, ranks=2)
    if args.case:
        sharding, way, popularity = args.case
        found = counted(sharding, way, popularity, work, args.steps)
        if os.environ["RANK"] == "0":
            print(json.dumps(found), flush=True)
        return
    sizes = [f"--{name}={getattr(args, name)}" for name in ("rows", "batch", "length", "steps")]
    lines = []
    for sharding in SHARDINGS:
        for popularity in POPULARITIES:
            bags, unpooled = (measured([sharding, way, popularity, *sizes]) for way in WAYS)
            mb = [f"{x['bytes'] / 1e6:.2f}" for x in (bags, unpooled)]
            ratio = f"{bags['bytes'] / unpooled['bytes']:.1f}"
            lines.append([sharding, popularity, *mb, ratio, *(f"{x['ms']:.0f}" for x in (bags, unpooled))])
    head = ["tables", "popularity", "bags, MB", "un-pooled, MB", "ratio", "bags, CPU ms", "un-pooled, CPU ms"]
    print(tabulate(lines, head, disable_numparse=True, colalign=("left", "left", *["right"] * 5)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
