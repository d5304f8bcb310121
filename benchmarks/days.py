"""How long `coldrank prepare` takes for a log and for its last day, and how much memory it needs, on a simulated log.

    python benchmarks/days.py --events 20000000 --work /a/folder/with/room

Simulates a log of 30 days in KuaiRand's CSV (once; it stays in the work folder) and cuts off its last day. Prepares the
whole, and what comes before the last day; appends the last day to that; holds that both hold the same samples. A line
for each.
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

COLDRANK = [sys.executable, "-m", "coldrank.cli.main"]


def main() -> None:
    """Prints events, seconds, CPU seconds, events per second, peak resident memory and sizes of each preparation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="folder for the log and the samples")
    args = parser.parse_args()
    work = args.work / f"days-{args.events}-{args.seed}"
    if not (work / "last").exists():
        _cut(work, args.events, args.seed)
    whole = _measured("whole", work / "log", work / "whole")
    _measured("without the last day", work / "early", work / "grown")
    last = _measured("last day appended", work / "last", work / "grown", "--append")
    print(json.dumps({f"appended_over_whole_{n}": round(last[n] / whole[n], 4) for n in ("seconds", "cpu_seconds")}))
    one, other = (json.loads((work / n / "manifest.json").read_text())["partitions"] for n in ("whole", "grown"))
    kept = ("split", "period", "rows", "time_min", "time_max", "checksum")
    if [[p[n] for n in kept] for p in one] != [[p[n] for n in kept] for p in other]:
        sys.exit("the appended folder holds other samples than the whole")


def _cut(work: Path, events: int, seed: int) -> None:
    """Simulates log/, and writes early/ and last/: the same but for the last day, and that alone."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "log").exists():
        command = ["simulate", "--events", str(events), "--seed", str(seed), "--out", str(work / "log")]
        subprocess.run([*COLDRANK, *command], check=True)
    # Its last day in its own calendar; rows are cut by time, as a day's file would come.
    end = pl.lit(LAST_DAY).cast(pl.Datetime("ms")).dt.epoch("ms") - int(timedelta(hours=8).total_seconds()) * 1000
    time_ms = pl.col("time_ms").cast(pl.Int64)
    for name, kept in (("early", time_ms < end), ("last", time_ms >= end)):
        partial = work / f"{name}.partial"
        partial.mkdir(exist_ok=True)
        for path in (work / "log").iterdir():
            if path.name.startswith("log_"):
                rows = pl.scan_csv(path, infer_schema=False, glob=False).filter(kept)
                rows.sink_csv(partial / f"{path.stem}-{name}.csv")
            elif not (partial / path.name).exists():
                (partial / path.name).symlink_to(path.resolve())
        partial.rename(work / name)


def _measured(what: str, log: Path, out: Path, *more: str) -> dict[str, float]:
    start = time.perf_counter()
    process = subprocess.Popen([*COLDRANK, "prepare", "kuairand", "--data", str(log), "--out", str(out), *more])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"prepare failed: {what}")
    logs = [pl.scan_csv(p, infer_schema=False, glob=False) for p in log.glob("log_*")]
    events = pl.concat(logs).select(pl.len()).collect().item()
    result = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "events_per_second": round(events / seconds),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
        "log_gib": _gib(log),
        "samples_gib": _gib(out / "samples"),
        "state_gib": _gib(out / "state"),
    }
    print(json.dumps({"what": what, "events": events, "cores": os.cpu_count()} | result), flush=True)
    return result


def _gib(folder: Path) -> float:
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 2**30, 2)


if __name__ == "__main__":
    main()
