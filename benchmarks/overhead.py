"""What a training step of an arm costs beside the base's: arms take turns, step by step, in one process on one thread.

    python benchmarks/overhead.py --config coldrank.configs.kuairand --data DATA --arms base,poso,poso_mha
    python benchmarks/overhead.py --config coldrank.configs.kuairand --data DATA --arms base,poso --wider 4
    python benchmarks/overhead.py --config coldrank.configs.kuairand --data DATA --arms base,base+mwuf,base+metacf

Ratios are of CPU time on the same batch, the median over the batches and the quartiles: other load on the machine meets
all arms alike. `dense` is everything after the lookup, forward and backward, without the tables and the optimizers.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from flops import wider
from tabulate import tabulate
from tqdm import trange

from coldrank.data.batches import DataFolder
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader
from coldrank.models.batch import Batch
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import process_group
from coldrank.train.load import load
from coldrank.train.run import Run, build
from coldrank.train.stepping import Taken

WARM_UP = 5


def main() -> None:
    """Prints the table, and writes it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config module")
    parser.add_argument("--arms", required=True, help="ARM or ARM+HOOK, separated by commas; the first is the base")
    parser.add_argument("--data", type=Path, required=True, help="prepared data")
    parser.add_argument("--steps", type=int, default=60, help="measured steps (default: %(default)s)")
    parser.add_argument("--wider", type=int, default=1, help="times the widths of tables, heads, experts and towers")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="changes a field of all arms")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    arms = args.arms.split(",")
    with process_group() as ranks:
        data = DataFolder.open(args.data)
        configs = [_load(f"{args.config}:{arm}", ["train.threads=1", *args.set]) for arm in arms]
        figures = measure([build(wider(c, args.wider), data, ranks) for c in configs], args.steps)
    result = dict(zip(arms, figures, strict=True))
    rows = [[arm, *(_text(f[part]) for part in ("step", "dense"))] for arm, f in result.items()]
    print(tabulate(rows, ["arm", "step, CPU ms and ratio", "dense, CPU ms and ratio"], tablefmt="github"))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def _load(arm: str, settings: list[str]) -> RunConfig:
    name, *hooks = arm.split("+")
    return load(name, [*settings, f"hooks=[{','.join(hooks)}]"] if hooks else settings)


def measure(runs: list[Run], steps: int) -> list[dict[str, dict[str, float]]]:
    """What each run takes for a whole `step` and for `dense`.

    ms: the median CPU time. q25, ratio, q75: quartiles of its ratio to that of the first run.
    """
    first = runs[0]
    files = first.data.files(first.config.data.fit)
    for run in runs:
        fit_encoder(run.encoder, files)
    size, shuffle = first.config.data.batch_size, first.config.data.shuffle_rows
    readers = [SampleReader(files, r.make.columns(), size, shuffle_rows=shuffle, in_time=False, seed=1) for r in runs]
    streams = [map(run.make, reader.epoch(0)) for run, reader in zip(runs, readers, strict=True)]
    times = np.empty((2, steps, len(runs)))
    for n in trange(-WARM_UP, steps, desc="steps"):
        for i in np.random.default_rng(n + WARM_UP).permutation(len(runs)):  # nobody always comes after the same
            run, batch = runs[i], next(streams[i])
            taken = Taken(batch, 0, n, run.dynamic_ids(batch))
            times[:, n, i] = _timed(lambda r=run, t=taken: _step(r, t)), _timed(lambda r=run, b=batch: _dense(r, b))
    ratios = times / times[:, :, :1]
    return [
        {
            part: {
                "ms": float(np.median(times[p, :, i])),
                **dict(
                    zip(("q25", "ratio", "q75"), np.quantile(ratios[p, :, i], (0.25, 0.5, 0.75)).tolist(), strict=True)
                ),
            }
            for p, part in enumerate(("step", "dense"))
        }
        for i in range(len(runs))
    ]


def _timed(work: Callable[[], None]) -> float:
    """CPU time of this thread and of autograd's, in ms: on the CPU they are one."""
    start = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - start) / 1e6


def _step(run: Run, taken: Taken) -> None:
    run.begin_step(taken, 1, 2)
    run.model(taken.batch).loss.backward()
    run.end_step()


def _dense(run: Run, batch: Batch) -> None:
    task = run.model.module
    with torch.no_grad():
        embedded = task.embeddings(batch)
    leaves = {name: x.detach().requires_grad_() for name, x in embedded.items()}
    task.dense(batch, leaves).loss.backward()


def _text(figures: dict[str, float]) -> str:
    return f"{figures['ms']:.1f}: {figures['ratio']:.3f} ({figures['q25']:.3f} to {figures['q75']:.3f})"


if __name__ == "__main__":
    main()
