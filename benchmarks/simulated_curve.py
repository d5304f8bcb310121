"""Does POSO help when gates matter? Its gain over a base that has the AVC as a feature, beside what is there to gain.

    python benchmarks/simulated_curve.py run --out runs/curve --strengths 0,0.5,1,2,3 --seeds 1-5
    python benchmarks/simulated_curve.py run --out runs/curve --events 100000,500000 --seeds 1-5
    python benchmarks/simulated_curve.py table runs/curve --picture curve.svg

A seed is a log of its own (`coldrank simulate --seed`), and a run of every arm with that seed on it. So the differences
of the seeds hold what other users, videos and initial weights change, and their 95% interval is Student's t of the
paired differences. What is there is taken up: `run` again goes on where it stopped.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from figures import STYLE
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tabulate import tabulate
from tqdm import tqdm

from coldrank.analysis.compare.interval import t_point
from coldrank.cli.main import main as command
from coldrank.train.gates import RANGE

# How new users are different in every log, but for the strength of their gates.
LOG = ("--avc-scale", "30", "--new-user-share", "0.2")
TEST_FROM = "2022-05-04"
STRENGTH, EVENTS = 2.0, 100_000
# Chosen on a log of their own, with as many trials of the one as of the other (docs/results/simulated.md).
RATE = "optim.dense.lr=3.6e-3"
MOVING = "optim.dense.gate_lr_scale=3"
# Name -> arm of coldrank.configs.kuairand, fields set.
ARMS = {
    "base": ("base", ()),
    "poso": ("poso", (MOVING,)),
    "poso_constant_pc": ("poso_constant_pc", (MOVING,)),
    "poso_slow_gates": ("poso", ("optim.dense.gate_lr_scale=0.3",)),
}
LABELS = {"poso": "POSO", "poso_constant_pc": "POSO, constant code", "poso_slow_gates": "POSO, gates' rate .3"}
TASKS = ("long_view", "finish_view", "click", "like")
LEADING = "long_view"

Json = dict[str, Any]


def coldrank(*arguments: str, log: Path) -> None:
    """Runs a command of coldrank's in this process: a short run would spend a fifth of its time on loading torch again.
    What it prints goes to `log`; SystemExit with its last line if it fails."""
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        code = command(arguments)
    if code:
        raise SystemExit(f"{log}: {log.read_text().strip().splitlines()[-1]}")


def run(out: Path, strength: float, events: int, seed: int, arms: Sequence[str]) -> None:
    """Simulates a log, prepares it, trains the arms on it. The log itself goes."""
    folder = out / f"strength-{strength:g}-events-{events}-seed-{seed}"
    missing = [arm for arm in arms if not (folder / arm / "summary.json").exists()]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    log, data = folder / "log", folder / "data"
    if not data.exists():
        shutil.rmtree(log, ignore_errors=True)
        asked = ("--events", str(events), "--seed", str(seed), "--gate-strength", str(strength))
        coldrank("simulate", *asked, *LOG, "--format", "parquet", "--out", str(log), log=folder / "simulate.log")
        shutil.copy(log / "simulation.json", folder / "simulation.json")
        where = ("--data", str(log), "--out", str(data), "--test-from", TEST_FROM)
        coldrank("prepare", "kuairand", *where, log=folder / "prepare.log")
        shutil.rmtree(log)
    for name in missing:
        arm, fields = ARMS[name]
        where = ("--data", str(data), "--out", str(folder / name))
        fields = ("train.threads=1", f"seed={seed}", RATE, *fields)
        config = f"coldrank.configs.kuairand:{arm}"
        coldrank("train", "--config", config, *where, "--set", *fields, log=folder / f"{name}.log")


@dataclass(frozen=True, slots=True)
class Point:
    """What was found at a strength of the gates and a number of events, over S seeds."""

    strength: float
    """Of the gates of new users."""
    events: int
    """Of a log."""
    simulations: list[Json]
    """What simulation.json says, per seed."""
    figures: list[dict[str, dict[tuple[str, str], float]]]
    """Per seed: arm -> (cohort, task) -> AUC in percent."""
    ranges: list[dict[str, float]]
    """Per seed that tells: part of POSO -> how far its gates go from new to regular users, of a scale of 2."""

    def bound(self, name: str, cohort: str, task: str) -> float:
        """`best` or `gates_unknown`: an AUC in percent, mean over the seeds."""
        return float(np.mean([s["auc"][cohort][task][name] for s in self.simulations]))

    def headroom(self, cohort: str, task: str) -> float:
        """What the gates are worth to one who knows all else, points of AUC."""
        return self.bound("best", cohort, task) - self.bound("gates_unknown", cohort, task)

    def values(self, arm: str, cohort: str, task: str) -> list[float]:
        """AUC of an arm in percent, of the seeds that have it."""
        return [of[arm][cohort, task] for of in self.figures if arm in of]

    def gain(self, arm: str, cohort: str, task: str) -> tuple[float, float, int] | None:
        """Difference to `base` in points, half of its 95% interval (infinite for one seed), seeds. None: no seed."""
        pairs = [of[arm][cohort, task] - of["base"][cohort, task] for of in self.figures if {arm, "base"} <= of.keys()]
        return None if not pairs else (*mean_and_half(pairs), len(pairs))


def mean_and_half(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95% interval by Student's t: infinite for one value."""
    count = len(values)
    half = t_point(count - 1) * float(np.std(values, ddof=1)) / count**0.5 if count > 1 else float("inf")
    return float(np.mean(values)), half


def read(out: Path) -> list[Point]:
    """The points in a folder of `run`, by strength and events; of logs that `base` and `poso` have both ended on."""
    points: dict[tuple[float, int], Point] = {}
    for said in sorted(out.glob("*/simulation.json")):
        simulation = json.loads(said.read_text())
        of_arm = {
            arm: json.loads(path.read_text()) for arm in ARMS if (path := said.parent / arm / "summary.json").exists()
        }
        found = {
            a: {(r["cohort"], r["task"]): 100 * r["value"] for r in rows if _is_auc(r)} for a, rows in of_arm.items()
        }
        if not {"base", "poso"} <= found.keys():
            continue
        key = simulation["gate_strength"], simulation["events"]
        point = points.setdefault(key, Point(*key, [], [], []))
        point.simulations.append(simulation)
        point.figures.append(found)
        if went := {
            r["metric"].removeprefix(RANGE): r["value"] for r in of_arm["poso"] if r["metric"].startswith(RANGE)
        }:
            point.ranges.append(went)
    if not points:
        raise SystemExit(f"{out}: no log in it that base and poso have both ended on")
    return [points[key] for key in sorted(points)]


def _is_auc(row: Json) -> bool:
    return bool(row["metric"] == "auc" and row["split"] == "test" and row["value"] is not None)


def table(points: Sequence[Point], cohort: str, tasks: Sequence[str]) -> str:
    """A line per point and task: AUC of the base, the two bounds, and the arms' gains with their intervals and shares
    of the headroom."""
    arms = [arm for arm in LABELS if any(p.gain(arm, cohort, task) for p in points for task in tasks)]
    rows = []
    for point in points:
        for task in tasks:
            base, room = point.values("base", cohort, task), point.headroom(cohort, task)
            row = [f"{point.strength:g}", f"{point.events:,}", task, f"{np.mean(base):.2f}"]
            row += [f"{point.bound(b, cohort, task):.2f}" for b in ("gates_unknown", "best")]
            rows.append([*row, f"{room:.2f}", *(_gain(point, arm, cohort, task) for arm in arms)])
    headers = ["gate strength", "events", "task", "base", "gates unknown", "best", "headroom"]
    return str(tabulate(rows, [*headers, *(LABELS[a] for a in arms)], tablefmt="github", disable_numparse=True))


def range_table(points: Sequence[Point]) -> str:
    """How far POSO's gates go, a column for each of its parts, mean over the seeds that tell."""
    parts = list(dict.fromkeys(part for p in points for went in p.ranges for part in went))
    told = [p for p in points if p.ranges]
    rows = [
        [f"{p.strength:g}", f"{p.events:,}", *(f"{np.mean([w[part] for w in p.ranges]):.3f}" for part in parts)]
        for p in told
    ]
    return str(tabulate(rows, ["gate strength", "events", *parts], tablefmt="github", disable_numparse=True))


def _gain(point: Point, arm: str, cohort: str, task: str) -> str:
    if (found := point.gain(arm, cohort, task)) is None:
        return "-"
    gain, half, seeds = found
    text = f"{gain:+.2f}" + (f" ±{half:.2f}" if np.isfinite(half) else "")
    room = point.headroom(cohort, task)
    share = f" ({100 * gain / room:.0f}% ±{100 * half / room:.0f})" if room > 0 and np.isfinite(half) else ""
    return f"{text}{share}, {seeds}"


def picture(points: Sequence[Point], task: str, cohort: str = "new_user") -> Figure:
    """Above the AUC of the base and of POSO between what the log allows; below the gains with 95% intervals. By the
    strength of the gates on the left, by the number of events on the right."""
    figure = Figure(figsize=(8.5, 5.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    by_strength = [p for p in points if p.events == EVENTS]
    by_events = [p for p in points if p.strength == STRENGTH]
    for column, some, x, label in (
        (0, by_strength, [p.strength for p in by_strength], f"gate strength ({EVENTS:,} events)"),
        (1, by_events, [p.events for p in by_events], f"events (gate strength {STRENGTH:g})"),
    ):
        _levels(panels[0, column], some, x, cohort, task)
        _gains(panels[1, column], some, x, cohort, task)
        panels[1, column].set_xlabel(label)
    panels[0, 1].set_xscale("log")
    ticks = [p.events for p in by_events]
    panels[1, 1].set_xticks(ticks, [f"{n // 1000}k" if n < 1_000_000 else f"{n / 1e6:g}M" for n in ticks])
    panels[1, 1].minorticks_off()
    panels[0, 0].set_ylabel(f"AUC of {task}, new users, %")
    panels[1, 0].set_ylabel("gain over base, points")
    panels[0, 0].legend(frameon=False, fontsize=7)
    panels[1, 0].legend(frameon=False, fontsize=7)
    return figure


def _levels(axes: Axes, points: Sequence[Point], x: Sequence[float], cohort: str, task: str) -> None:
    best, unknown = ([p.bound(b, cohort, task) for p in points] for b in ("best", "gates_unknown"))
    axes.fill_between(x, unknown, best, color="0.88", label="headroom: best, over gates unknown", zorder=0)
    for arm, color, size in (("base", "0.5", 8), ("poso", "C0", 4)):  # POSO's marks stand in the base's where they meet
        values = [(at, np.mean(v)) for at, p in zip(x, points, strict=True) if (v := p.values(arm, cohort, task))]
        axes.plot(*zip(*values, strict=True), "o-", color=color, markersize=size, label=LABELS.get(arm, arm))


def _gains(axes: Axes, points: Sequence[Point], x: Sequence[float], cohort: str, task: str) -> None:
    axes.axhline(0, color="0.4", linewidth=0.8)
    for number, (arm, label) in enumerate(LABELS.items()):
        found = [(at, *g) for at, p in zip(x, points, strict=True) if (g := p.gain(arm, cohort, task)) and g[2] > 1]
        if found:
            at, gains, halves, _ = map(np.array, zip(*found, strict=True))
            axes.errorbar(at, gains, halves, fmt="o-", color=f"C{number}", markersize=4, linewidth=1, label=label)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    r = commands.add_parser("run", help="simulate, prepare and train what is not there")
    r.add_argument("--out", type=Path, required=True, help="folder of all runs")
    r.add_argument("--strengths", default=f"{STRENGTH:g}", help="of the gates (default: %(default)s)")
    r.add_argument("--events", default=str(EVENTS), help="of a log (default: %(default)s)")
    r.add_argument("--seeds", default="1-5", help="first-last (default: %(default)s)")
    r.add_argument("--arms", default="base,poso", help=f"of {', '.join(ARMS)} (default: %(default)s)")
    t = commands.add_parser("table", help="print the tables, draw the picture")
    t.add_argument("runs", type=Path, help="folder of all runs")
    t.add_argument("--picture", type=Path, help="SVG file to write")
    args = parser.parse_args()
    if args.command == "run":
        todo = [
            (s, int(e), n) for n in _seeds(args.seeds) for s in _numbers(args.strengths) for e in _numbers(args.events)
        ]
        for strength, events, seed in tqdm(todo, unit="log"):
            run(args.out, strength, events, seed, args.arms.split(","))
        return
    points = read(args.runs)
    for cohort, tasks in (("new_user", TASKS), ("all", TASKS)):
        print(f"{cohort}\n\n{table(points, cohort, tasks)}\n")
    print(f"range of POSO's gates\n\n{range_table(points)}")
    if args.picture:
        with mpl.rc_context(STYLE):
            picture(points, LEADING).savefig(args.picture, metadata={"Date": None})


if __name__ == "__main__":
    main()
