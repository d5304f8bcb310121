"""How long `coldrank prepare` takes and how much memory it needs, on a simulated log.

    python benchmarks/prepare.py --events 20000000 --work /a/folder/with/room

Simulates the log (once; it stays in the work folder), prepares it in a process of its own, and prints one line.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

COLDRANK = [sys.executable, "-m", "coldrank.train.main"]


def main() -> None:
    """Prints events, seconds, rows per second, peak resident memory and the size of log and samples on disk."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--work", type=Path, required=True, help="folder for the log and the samples")
    args = parser.parse_args()
    log, out = args.work / f"log-{args.events}", args.work / f"samples-{args.events}"
    if not log.exists():
        subprocess.run([*COLDRANK, "simulate", "--events", str(args.events), "--out", str(log)], check=True)
    start = time.perf_counter()
    process = subprocess.Popen([*COLDRANK, "prepare", "kuairand", "--data", str(log), "--out", str(out)])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit("prepare failed")
    result = {
        "events": args.events,
        "seconds": round(seconds, 1),
        "rows_per_second": round(args.events / seconds),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
        "log_gib": round(_size(log), 2),
        "samples_gib": round(_size(out), 2),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result))


def _size(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 2**30


if __name__ == "__main__":
    main()
