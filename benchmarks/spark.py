"""How long `coldrank prepare` takes by either engine, and how much memory, on one simulated log.

    python benchmarks/spark.py --events 2000000 --work /a/folder/with/room

Simulates a log (once; it stays in the work folder), prepares it by the local engine and by Spark on this machine's
cores, in turns, and holds that both write the same samples. A line for each, then the ratios.
"""

import argparse
import filecmp
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

COLDRANK = [sys.executable, "-m", "coldrank.cli.main"]
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Prints seconds, CPU seconds and the peak resident memory of the whole tree of processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--master", default="local[*]")
    parser.add_argument("--work", type=Path, required=True, help="folder for the log and the samples")
    args = parser.parse_args()
    work = args.work / f"spark-{args.events}-{args.seed}"
    log = work / "log"
    if not log.exists():
        work.mkdir(parents=True, exist_ok=True)
        simulate = ["simulate", "--events", str(args.events), "--seed", str(args.seed), "--out", str(log)]
        subprocess.run([*COLDRANK, *simulate], check=True)
    settings = ["--spark-conf", f"spark.master={args.master}", "--spark-conf", "spark.ui.enabled=false"]
    for _ in range(args.rounds):
        local = _measured("local", args.events, log, work / "local")
        spark = _measured("spark", args.events, log, work / "spark", *settings)
        _same(work / "local", work / "spark")
        print(json.dumps({f"spark_over_local_{n}": round(spark[n] / local[n], 2) for n in local}), flush=True)


def _measured(engine: str, events: int, log: Path, out: Path, *more: str) -> dict[str, float]:
    command = ["prepare", "kuairand", "--data", str(log), "--out", str(out), "--engine", engine, *more]
    start = time.perf_counter()
    process = subprocess.Popen([*COLDRANK, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    watch = _Watch(process.pid)
    said = process.communicate()[1]
    result = {"seconds": round(time.perf_counter() - start, 1)} | watch.end()
    if process.returncode:
        sys.exit(f"prepare failed: {engine}: {said.decode()[-2000:]}")
    print(json.dumps({"engine": engine, "events": events, "cores": os.cpu_count()} | result), flush=True)
    return result


class _Watch:
    """Looks at a process and all that it started, ten times a second."""

    def __init__(self, root: int) -> None:
        self._root, self._peak, self._done = root, 0, threading.Event()
        self._cpu: dict[int, int] = {}
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def end(self) -> dict[str, float]:
        self._done.set()
        self._thread.join()
        return {"cpu_seconds": round(sum(self._cpu.values()) / _TICKS, 1), "peak_gib": round(self._peak / 2**30, 2)}

    def _look(self) -> None:
        while not self._done.wait(0.1):
            tree = _tree(self._root)
            self._peak = max(self._peak, sum(rss for rss, _ in tree.values()))
            self._cpu |= {pid: ticks for pid, (_, ticks) in tree.items()}


def _tree(root: int) -> dict[int, tuple[int, int]]:
    """Process -> resident bytes and ticks of CPU, of a process and its descendants. Pages that several share count
    for each."""
    found: dict[int, tuple[int, int, int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        found[int(path.parent.name)] = int(fields[1]), int(fields[21]) * _PAGE, int(fields[11]) + int(fields[12])
    tree, more = {root}, {root}
    while more:
        more = {pid for pid, (parent, _, _) in found.items() if parent in more} - tree
        tree |= more
    return {pid: found[pid][1:] for pid in tree & found.keys()}


def _same(one: Path, other: Path) -> None:
    """Byte for byte. Ends where they differ; periods above `Sizes.file_rows` are cut into other files."""
    left, right = (json.loads((folder / "manifest.json").read_text())["partitions"] for folder in (one, other))
    if [p | {"path": ""} for p in left] != [p | {"path": ""} for p in right]:
        sys.exit("the engines have written other files")
    for mine, theirs in zip(left, right, strict=True):
        if not filecmp.cmp(one / mine["path"], other / theirs["path"], shallow=False):
            sys.exit(f"the engines have written other samples: {mine['path']}")


if __name__ == "__main__":
    main()
