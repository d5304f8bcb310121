"""Maps of dynamic ids on one, two and four ranks, whole on each and shared out: memory of a rank, and time of a step.

    python benchmarks/id_maps.py [--rows 1000000] [--values 100000] [--steps 20]
    python benchmarks/id_maps.py --sketch

A growing table that is full to a half; a step reads `--values` ids on all ranks together, most of them often, one in a
thousand new. Times are CPU milliseconds of a rank per step, the median over the steps, the mean over the ranks: of
reading ahead, which looks up what it can and finds the distinct ids, and of the training thread with what it exchanges
(gloo on this machine). With `--sketch`: of a million ids that are seen once each, in batches of a thousand, the share
that a sketch takes for seen before, by its counters.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate
from torch import Tensor
from torchrec import KeyedJaggedTensor
from tqdm import tqdm

from coldrank.models.batch import Batch
from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.models.ids.admission import DEPTH, Sketch
from coldrank.models.ids.mixing import Share, mix64
from coldrank.train.distributed.ranks import process_group
from coldrank.train.ids.dynamic import DynamicIds

RANKS = (1, 2, 4)
_FILL = 50_000


def features(rows: int) -> FeatureSet:
    """One feature of a growing table."""
    table = Table(name="item", rows=rows, dim=4, mapping="growing")
    return FeatureSet([Feature(name="item", role="item", kind="id", table="item")], [table])


def batch_of(encoder: FeatureEncoder, ids: Tensor) -> Batch:
    """What reading ahead makes of ids [N]."""
    raw = {"item": ids}
    values, lengths, dense, sequence_lengths = encoder(raw)
    unknown = encoder.unknown(raw, values)
    sparse = KeyedJaggedTensor(keys=["item"], values=values, lengths=lengths)
    return Batch(sparse, dense, sequence_lengths, torch.zeros(len(ids), 1), {}, unknown)


def steps_of_ids(rows: int, values: int, steps: int, rank: int, ranks: int) -> Iterator[Tensor]:
    """This rank's ids: first those that fill half of the table, each once; then of a step each."""
    known = rows // 2
    for start in range(0, known, _FILL):
        yield mix64(torch.arange(start + rank, min(start + _FILL, known), ranks))
    generator = torch.Generator().manual_seed(rank)
    for step in range(steps):
        drawn = (torch.rand(values // ranks, generator=generator) ** 3 * known).long()
        new = known + (step * ranks + rank) * values + torch.arange(len(drawn) // 1000)
        drawn[: len(new)] = new
        yield mix64(drawn)


def measure(how: str, rows: int, values: int, steps: int) -> dict[str, float]:
    """Of this rank: bytes of its map, and CPU milliseconds of reading ahead and of the training thread."""
    with process_group() as ranks, torch.no_grad():
        share = Share(ranks.rank, ranks.world_size) if how == "sharded" and ranks.world_size > 1 else None
        encoder = FeatureEncoder(features(rows), share)
        dynamic_ids = DynamicIds(encoder, ranks, lambda table, rows, step: None)
        ahead, step_times = [], []
        for ids in steps_of_ids(rows, values, steps, ranks.rank, ranks.world_size):
            start = time.process_time()
            batch = batch_of(encoder, ids)
            middle = time.process_time()
            dynamic_ids(batch)
            ahead.append(middle - start)
            step_times.append(time.process_time() - middle)
            assert bool((batch.sparse.values() > 0).all())
        held = sum(b.nbytes for b in encoder.maps["item"].buffers())
        return {
            "bytes": held,
            "ahead": 1e3 * median(ahead[-steps:]),
            "step": 1e3 * median(step_times[-steps:]),
        }


def measured(ranks: int, how: str, arguments: list[str]) -> list[dict[str, float]]:
    """What `measure` gives on each of some ranks, in processes of their own."""
    program = [str(Path(__file__).resolve()), "--one", how, *arguments]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *program]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(launch, check=False, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{ranks} ranks, {how}: {ended.stderr.strip().splitlines()[-1]}")
    return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]


def early() -> Iterator[tuple[int, float]]:
    """Counters of a row of a sketch, and the share of ids seen once that it takes for seen before."""
    ids, once = 1 << 20, torch.ones(1024, dtype=torch.int64)
    for counters in (ids, 2 * ids, 4 * ids):
        sketch = Sketch(DEPTH * counters)
        seen = sum(int((sketch.add(mix64(some), once) > 1).sum()) for some in torch.arange(ids).split(1024))
        yield counters, seen / ids


def main() -> None:
    """Prints a row for each number of ranks, whole and shared out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the table (default: %(default)s)")
    parser.add_argument("--values", type=int, default=100_000, help="ids of a step, all ranks (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="measured steps (default: %(default)s)")
    parser.add_argument("--sketch", action="store_true", help="how often a sketch is early, in place of the maps")
    parser.add_argument("--one", choices=["whole", "sharded"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.rows, args.values, args.steps)), flush=True)
        return
    if args.sketch:
        print(tabulate(early(), ["counters in each of four rows", "share of a million ids"], tablefmt="github"))
        return
    arguments = [f"--rows={args.rows}", f"--values={args.values}", f"--steps={args.steps}"]
    cases = [(ranks, how) for ranks in RANKS for how in ("whole", "sharded") if ranks > 1 or how == "whole"]
    rows = []
    for ranks, how in tqdm(cases, desc="cases"):
        of_ranks = measured(ranks, how, arguments)
        most = max(m["bytes"] for m in of_ranks)
        means = [sum(m[name] for m in of_ranks) / ranks for name in ("ahead", "step")]
        rows.append([ranks, how, f"{most / 2**20:.1f}", *(f"{mean:.1f}" for mean in means)])
    head = ["ranks", "id_maps", "MiB of the map, a rank at most", "reading ahead, ms", "in the step, ms"]
    print(tabulate(rows, head, tablefmt="github"))


if __name__ == "__main__":
    main()
