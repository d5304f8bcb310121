"""What PAM's steps cost beside plain fine-tuning: CPU time per step and the process's peak memory, all arms in one run.

    python benchmarks/pam.py --data DATA [--steps 20] [--repeats 3] [--arms pf,pam_m,pam_f,pam_m_looped]

DATA: samples that the arms of coldrank.configs.pam can read. Every arm runs in a process of its own, in turns, on one
thread and on the same batches of the last period; `pam_m_looped` is pam_m with a Python loop over the groups.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from coldrank.data.batches import DataFolder
from coldrank.data.by_time import TimeReader
from coldrank.data.fit import fit_encoder
from coldrank.models.batch import Batch
from coldrank.modules.inner_loop import Weights
from coldrank.modules.pam import RowsByGroup
from coldrank.train.distributed.ranks import process_group
from coldrank.train.hooks.pam.pam import Pam, PamModule
from coldrank.train.hooks.pam.rows import GroupRows
from coldrank.train.load import load
from coldrank.train.run import Run, build

LOOPED = "_looped"
WARM_UP = 3


class Looped(PamModule):
    """One group after the other."""

    def adapt(self, rows: GroupRows, support: RowsByGroup, start: Weights, among: Tensor | None) -> list[Weights]:
        paths = []
        for n, support_of_group in enumerate(_one_by_one(support)):
            alone = {name: w[n : n + 1] for name, w in start.items()}
            paths.append(super().adapt(rows, support_of_group, alone, among))
        return [{k: torch.cat([path[s][k] for path in paths]) for k in start} for s in range(len(paths[0]))]

    def _query(
        self, rows: GroupRows, query: RowsByGroup, path: list[Weights], size: float | None = None
    ) -> tuple[Tensor, Tensor]:
        losses = [
            rows.losses(query_of_group, self.among(query))({k: w[n : n + 1] for k, w in path[-1].items()})
            for n, query_of_group in enumerate(_one_by_one(query))
        ]
        weighted = [
            weight * loss.sum() / (size or len(rows.labels)) for weight, loss in zip(self.weights, losses, strict=True)
        ]
        return torch.stack(weighted).sum(), torch.cat(losses)


def _one_by_one(rows: RowsByGroup) -> list[RowsByGroup]:
    parts = rows.index.split(rows.counts)
    return [RowsByGroup(part, torch.zeros_like(part), [len(part)]) for part in parts]


def main() -> None:
    """Runs the arms in turns and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared data")
    parser.add_argument("--module", default="coldrank.configs.pam", help="module of the arms")
    parser.add_argument("--arms", default="pf,pam_m,pam_f,pam_m_looped")
    parser.add_argument("--steps", type=int, default=20, help="measured, after 3 others (default: 20)")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each arm (default: 3)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="changes a field of all arms")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(f"{args.module}:{args.one}", args.set, args.data, args.steps)))
        return
    arms = args.arms.split(",")
    measured: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for _ in range(args.repeats):
        for arm in arms:
            command = [sys.executable, __file__, "--data", str(args.data), "--module", args.module]
            command += ["--steps", str(args.steps), "--one", arm, *(part for s in args.set for part in ("--set", s))]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            measured[arm].append(json.loads(out.splitlines()[-1]))
    middle = {a: {k: statistics.median(run[k] for run in runs) for k in runs[0]} for a, runs in measured.items()}
    base = middle[arms[0]]
    rows = [
        [
            a,
            m["step_ms"],
            m["step_ms"] / base["step_ms"],
            m["dense_ms"],
            m["dense_ms"] / base["dense_ms"],
            m["peak_mib"],
        ]
        for a, m in middle.items()
    ]
    headers = ["arm", "CPU ms per step", f"x {arms[0]}", "without tables, ms", f"x {arms[0]}", "peak MiB"]
    print(tabulate(rows, headers=headers, floatfmt=("", ".1f", ".2f", ".1f", ".2f", ".0f")))


def measure(config: str, settings: list[str], data: Path, steps: int) -> dict[str, float]:
    """What an arm takes.

    step_ms: CPU time of a whole step, batch in hand. dense_ms: of what follows the lookup, forward and backward, alone.
    """
    looped = config.endswith(LOOPED)
    if looped:
        Pam.build = lambda self, config, features: Looped(self, config, features)
    torch.set_num_threads(1)
    with process_group() as ranks:
        run = build(load(config.removesuffix(LOOPED), ["train.threads=1", *settings]), DataFolder.open(data), ranks)
        batches = _batches(run, steps + WARM_UP)
        step, dense = (_timed(f, batches) for f in (lambda b: _step(run, b), lambda b: _dense(run, b)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"step_ms": step, "dense_ms": dense, "peak_mib": peak}


def _batches(run: Run, count: int) -> list[Batch]:
    last = max(p["period"] for p in run.data.manifest["partitions"])
    files = [run.data.path / p["path"] for p in run.data.manifest["partitions"] if p["period"] == last]
    fit_encoder(run.encoder, files)
    reader = TimeReader(files, run.make.columns(), run.config.data.batch_size)
    batches = []
    for n, raw in enumerate(reader.epoch(0)):
        if n < min(count, reader.total_rows // reader.step_rows):
            batches.append(run.make(raw))
            run.dynamic_ids(batches[-1])
    return batches


def _timed(call: Any, batches: list[Batch]) -> float:
    """Median CPU time in milliseconds."""
    times = []
    for batch in batches:
        begun = time.process_time()
        call(batch)
        times.append(1000 * (time.process_time() - begun))
    return statistics.median(times[WARM_UP:])


def _step(run: Run, batch: Batch) -> None:
    run.optimizers.begin_step(0, 1)
    run.model(batch).loss.backward()
    run.end_step()


def _dense(run: Run, batch: Batch) -> None:
    task = run.model.module
    with torch.no_grad():
        embedded = task.embeddings(batch)
    leaves = {name: x.detach().requires_grad_() for name, x in embedded.items()}
    task.dense(batch, leaves).loss.backward()


if __name__ == "__main__":
    main()
