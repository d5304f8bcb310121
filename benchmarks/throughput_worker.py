"""One side of benchmarks/throughput.py in a process of its own: reads `step N` and `whole N`, answers with seconds."""

import argparse
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from throughput_cost import SideJob

from coldrank.data.batches import DataFolder

# Side -> the library that it needs beyond what coldrank needs.
NEEDS = {"fuxictr": "fuxictr", "nextrec": "nextrec", "rechub": "torch_rechub"}
# Side -> the module that makes it.
MODULES = {
    "ours": "throughput_ours",
    "bare": "throughput_loops",
    "bare_mha": "throughput_loops",
    "plain": "throughput_loops",
    "fuxictr": "throughput_peers",
    "nextrec": "throughput_peers",
    "rechub": "throughput_peers",
}


def main() -> None:
    """Answers until its input ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=MODULES)
    parser.add_argument("--work", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--config", default="")
    args = parser.parse_args()
    # What libraries print goes to standard error: standard output is for the answers alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    make = importlib.import_module(MODULES[args.side]).make
    with tempfile.TemporaryDirectory() as folder:
        job = SideJob(args.side, args.work, DataFolder.open(args.data), args.batch, Path(folder), args.config)
        with make(job) as side:
            for line in sys.stdin:
                what, steps = line.split()
                cost = {"step": side.step, "whole": side.whole}[what](int(steps))
                print(json.dumps(cost._asdict()), file=answers, flush=True)


if __name__ == "__main__":
    main()
