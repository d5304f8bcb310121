"""How long `coldrank prepare` takes for a log and for its last day, and how much memory it needs, on a simulated log.

    python benchmarks/days.py --events 1000000 --work /a/folder/with/room

Simulates a log of 30 days (once; it stays in the work folder) and cuts off its last day. Prepares the whole, and what
comes before the last day; appends the last day to that; holds that both hold the same samples. A line for each.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import polars as pl

from coldrank.data.simulate.simulate import LAST_DAY

COLDRANK = [sys.executable, "-m", "coldrank.train.main"]


def main() -> None:
    """Prints events, seconds, events per second and peak resident memory of each preparation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="folder for the log and the samples")
    args = parser.parse_args()
    work = args.work / f"days-{args.events}-{args.seed}"
    if not (work / "last").exists():
        _cut(work, args.events, args.seed)
    whole = _measured("whole", work / "log", work / "whole")
    early = _measured("without the last day", work / "early", work / "grown")
    last = _measured("last day appended", work / "last", work / "grown", "--append")
    print(json.dumps({"appended_over_whole": round(last / whole, 4), "early_seconds": round(early, 1)}))
    one, other = (json.loads((work / n / "manifest.json").read_text())["partitions"] for n in ("whole", "grown"))
    kept = ("split", "period", "rows", "time_min", "time_max", "checksum")
    if [[p[n] for n in kept] for p in one] != [[p[n] for n in kept] for p in other]:
        sys.exit("the appended folder holds other samples than the whole")


def _cut(work: Path, events: int, seed: int) -> None:
    """Simulates log/, and writes early/ and last/: the same but for the last day, and that alone."""
    work.mkdir(parents=True, exist_ok=True)
    command = ["simulate", "--events", str(events), "--seed", str(seed), "--format", "parquet", "--out"]
    if not (work / "log").exists():
        subprocess.run([*COLDRANK, *command, str(work / "log")], check=True)
    # Its last day in its own calendar; rows are cut by time, as a day's file would come.
    end = pl.lit(LAST_DAY).cast(pl.Datetime("ms")).dt.epoch("ms") - int(timedelta(hours=8).total_seconds()) * 1000
    for name, kept in (("early", pl.col("time_ms") < end), ("last", pl.col("time_ms") >= end)):
        partial = work / f"{name}.partial"
        partial.mkdir(exist_ok=True)
        for path in (work / "log").iterdir():
            if path.name.startswith("log_"):
                pl.read_parquet(path, glob=False).filter(kept).write_parquet(partial / f"{path.stem}-{name}.parquet")
            elif not (partial / path.name).exists():
                (partial / path.name).symlink_to(path.resolve())
        partial.rename(work / name)


def _measured(what: str, log: Path, out: Path, *more: str) -> float:
    start = time.perf_counter()
    process = subprocess.Popen([*COLDRANK, "prepare", "kuairand", "--data", str(log), "--out", str(out), *more])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"prepare failed: {what}")
    events = pl.concat([pl.scan_parquet(p, glob=False) for p in log.glob("log_*")]).select(pl.len()).collect().item()
    result = {
        "what": what,
        "events": events,
        "seconds": round(seconds, 1),
        "events_per_second": round(events / seconds),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result), flush=True)
    return seconds


if __name__ == "__main__":
    main()
