"""What sampled negatives cost `prepare`: seconds, rows and memory with and without, on a simulated log.

    python benchmarks/negatives.py --events 1000000 --work /a/folder/with/room

Simulates a log in KuaiRand's layout (once) and prepares it in a process of its own: without negatives, with uniform
ones, with those drawn by popularity. A line for each.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from coldrank.data.kuairand import open_kuairand
from coldrank.data.log import Negatives
from coldrank.data.prepare import PrepareOptions, prepare
from coldrank.data.split import split_by_share

KEYS = {"duration": "item"}
ARMS = {
    "none": None,
    "uniform": Negatives(keys=KEYS),
    "popularity": Negatives(draw="popularity", power=0.75, keys=KEYS),
    "unseen": Negatives(seen="never", keys=KEYS),
}


def main() -> None:
    """Prints a line for each way of drawing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, required=True, help="folder for the log and the samples")
    parser.add_argument("--arm", choices=ARMS, help="this one alone, in this process")
    args = parser.parse_args()
    log = args.work / f"log-{args.events}"
    if not log.exists():
        command = ["simulate", "--events", str(args.events), "--seed", "0", "--out", str(log)]
        subprocess.run([sys.executable, "-m", "coldrank.cli.main", *command], check=True)
    if args.arm:
        print(json.dumps({"arm": args.arm} | _measured(log, args.work / "out", ARMS[args.arm])), flush=True)
        return
    for arm in ARMS:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--arm", arm], check=True)


def _measured(log: Path, out: Path, negatives: Negatives | None) -> dict[str, float]:
    start = time.perf_counter()
    opened = open_kuairand(log)
    opened = replace(opened, spec=replace(opened.spec, negatives=negatives))
    rule = lambda known: split_by_share(known.times)
    made = prepare(opened, out, rule, PrepareOptions(history=50, arguments={}))
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    rows = sum(split["rows"] for split in made["splits"].values())
    return {
        "rows": rows,
        "negatives": made["counts"].get("negatives", 0),
        "fewer": made["counts"].get("events_with_fewer_negatives", 0),
        "cores": os.cpu_count() or 0,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "rows_per_cpu_second": round(rows / (usage.ru_utime + usage.ru_stime)),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
    }


if __name__ == "__main__":
    main()
