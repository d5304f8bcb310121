"""Training throughput beside other ways to train the same model: samples per second of CPU time, one thread each.

    python benchmarks/throughput.py --work A --out figures.json
    python benchmarks/throughput.py --work C --config coldrank.configs.kuairand:poso --data DATA

Work A: MMoE of 4 experts [256, 128] and towers [64] over 20 ids, tables of 50,000 x 16, 2 tasks.
Work B: the same with attention over a history of 50 items (multi-head in ours and `bare_mha`, DIN's in the others).
Work C: an arm and data of one's own, ours only.

Sides: `ours`; `bare`, a loop by hand over FBGEMM's tables; `plain`, the same over nn.EmbeddingBag; `fuxictr`, `nextrec`
and `rechub` (torch-rechub), where they are installed: `pip install 'coldrank[bench]'`, NextRec as throughput_nextrec.py
says. Each lives in a process of its own, and they take turns.

Measured is the median of `--repeat` turns of

    step        forward, backward and optimizers over batches that are there
    end to end  from Parquet, with metrics: what a training of `--long` steps takes over one of `--short`, so that
                starting and ending cancel
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from tabulate import tabulate
from throughput_cost import Cost
from throughput_data import write_data
from throughput_worker import MODULES, NEEDS

from coldrank.data.batches import DataFolder
from coldrank.train.load import load

WORKS = {"A": [s for s in MODULES if s != "bare_mha"], "B": list(MODULES), "C": ["ours"]}


def main() -> None:
    """Measures, prints a table in Markdown, and writes everything as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", choices=WORKS, required=True)
    parser.add_argument("--rows", type=int, default=400_000, help="events of the log that is made for work A and B")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=16, help="steps over ready batches per turn")
    parser.add_argument("--short", type=int, default=8, help="steps of the shorter training")
    parser.add_argument(
        "--long", type=int, default=72, help="steps of the longer one; 16 more are a shuffle buffer of ours"
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--sides", help="some of " + ", ".join(MODULES))
    parser.add_argument("--folder", type=Path, help="for the samples, which stay there; default: a temporary one")
    parser.add_argument("--data", type=Path, help="prepared data for work C")
    parser.add_argument("--config", default="", help="arm for work C")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    if (args.work == "C") != bool(args.data and args.config):
        parser.error("--data and --config go with work C, and with no other")
    if not 0 < args.short < args.long:
        parser.error(f"--short {args.short} --long {args.long}: should be above 0, and the second the larger")
    with tempfile.TemporaryDirectory() as temporary:
        data = (
            DataFolder.open(args.data)
            if args.data
            else write_data(args.folder or Path(temporary), args.work, args.rows)
        )
        batch = load(args.config).data.batch_size if args.config else args.batch
        result = measure(args, data, batch, Path(temporary))
    print(table(result))
    if args.out:
        partial = args.out.with_name(args.out.name + ".partial")
        partial.write_text(json.dumps(result, indent=1) + "\n")
        os.replace(partial, args.out)


def measure(args: argparse.Namespace, data: DataFolder, batch: int, logs: Path) -> dict[str, Any]:
    """All sides, in turns.

    sides: samples per second of CPU time and of the clock, for `step` and `end to end`.
    missing: sides that were left out, and why.
    """
    wanted = args.sides.split(",") if args.sides else WORKS[args.work]
    missing = {
        s: f"{NEEDS[s]} is not installed" for s in wanted if s in NEEDS and not importlib.util.find_spec(NEEDS[s])
    }
    common = ["--work", args.work, "--data", str(data.path), "--batch", str(batch), "--config", args.config]
    workers = {s: Worker(s, common, logs / f"{s}.log") for s in wanted if s not in missing}
    asked = (("step", args.steps), ("whole", args.short), ("whole", args.long))
    costs: dict[str, dict[tuple[str, int], list[Cost]]] = {s: {a: [] for a in asked} for s in workers}
    for turn in range(args.repeat):
        for name, worker in workers.items():
            for what in asked:
                if name not in missing:
                    try:
                        cost = worker.ask(*what)
                        costs[name][what].append(cost)
                        took = f"{cost.cpu:.2f} s of CPU, {cost.wall:.2f} s"
                        print(f"turn {turn + 1} of {args.repeat}: {name}, {what[0]} {what[1]}: {took}", file=sys.stderr)
                    except RuntimeError as error:
                        missing[name] = str(error)
                        print(f"{name}: left out, {error}", file=sys.stderr)
    for worker in workers.values():
        worker.end()
    sides = {name: _figures(args, batch, c) for name, c in costs.items() if name not in missing}
    return {
        "machine": f"{platform.machine()}, {_cpu_model()}",
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
        "batch": batch,
        "sides": sides,
        "missing": missing,
    }


def _figures(args: argparse.Namespace, batch: int, costs: dict[tuple[str, int], list[Cost]]) -> dict[str, Any]:
    def seconds(what: str, steps: int, clock: str) -> list[float]:
        return [getattr(cost, clock) for cost in costs[what, steps]]

    rates: dict[str, Any] = {"step": {}, "end to end": {}}
    for clock in Cost._fields:
        rates["step"][clock] = round(args.steps * batch / median(seconds("step", args.steps, clock)))
        # Within a turn: what else the machine does changes from one to the next.
        both = zip(seconds("whole", args.long, clock), seconds("whole", args.short, clock), strict=True)
        took = median(long - short for long, short in both)
        rates["end to end"][clock] = round((args.long - args.short) * batch / took)
    return rates | {"seconds": {f"{what} {n}": [list(cost) for cost in turns] for (what, n), turns in costs.items()}}


def table(result: dict[str, Any]) -> str:
    """Markdown: samples per second of CPU time, times the bare loop, and samples per second of the clock."""
    sides, rows = result["sides"], []
    for name, side in sides.items():
        row: list[object] = [name]
        for what in ("end to end", "step"):
            floor = sides["bare"][what]["cpu"] if "bare" in sides else None
            row += [
                f"{side[what]['cpu']:,}",
                f"{side[what]['cpu'] / floor:.2f}" if floor else "-",
                f"{side[what]['wall']:,}",
            ]
        rows.append(row)
    heads = [
        f"{what}{unit}"
        for what in ("end to end", "step")
        for unit in (", samples per CPU second", ", times bare", ", per second of the clock")
    ]
    lines = [tabulate(rows, ["", *heads], tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 6))]
    return "\n".join([*lines, *(f"\n{name}: left out, {why}" for name, why in result["missing"].items())])


class Worker:
    """A side in its own process, with one thread for numbers."""

    def __init__(self, side: str, arguments: list[str], log: Path) -> None:
        program = Path(__file__).with_name("throughput_worker.py")
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(program), side, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | threads | {"CUDA_VISIBLE_DEVICES": ""},
            )

    def ask(self, what: str, steps: int) -> Cost:
        """What so many steps took. Raises RuntimeError with the side's last line if it has ended."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(f"{what} {steps}\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.process.wait()
            raise RuntimeError((self.log.read_text().strip().splitlines() or ["it ended without a word"])[-1])
        return Cost(**json.loads(answer))

    def end(self) -> None:
        """Closes its input and waits."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


if __name__ == "__main__":
    main()
