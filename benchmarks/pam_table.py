"""Recall and NDCG of PAM's arms with differences to a baseline, over seeds and scored periods.

    python benchmarks/pam_table.py RUNS... [--baseline pf] [--metrics recall@5,recall@5_of_all] [--out table.json]

RUNS: folders of run folders, as `coldrank train --arms ... --seeds ...` leaves them. A difference is the mean over
seeds and periods. Its 95% interval, that of `coldrank compare`, takes runs of the same seed as pairs and redraws the
periods, of which there are few, in the place of users. An arm is compared on the seeds that the baseline has too.

Intervals are not corrected; verdicts are, by Holm's method: of cold items, and of popular ones, all differences of all
arms in the metrics that are asked for are one family. ▲ ▼: holds after it; △ ▽: the interval alone leaves 0 out.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from coldrank.analysis.compare.interval import contrast, holm

COHORTS = {"cold_item": "cold", "popular_item": "popular"}
DRAWS = 300
METRICS = ("recall@5", "recall@5_of_100", "recall@5_of_all")
Values = NDArray[np.float64]
Row = dict[str, str | float | int | None]
# (cohort, metric) -> period -> value.
Figures = dict[tuple[str, str], dict[str, float]]


def read(folder: Path) -> tuple[str, int, Figures]:
    """A run's arm, seed and figures."""
    config = json.loads((folder / "config.json").read_text())
    figures: Figures = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["period"] and row["split"] == "next" and row["value"] is not None:
            figures.setdefault((row["cohort"], row["metric"]), {})[row["period"]] = row["value"]
    return config["name"], config["seed"], figures


def read_all(runs: list[Path], arms: list[str]) -> dict[str, dict[int, Figures]]:
    """Arm -> seed -> its figures, of runs that have ended. arms: of these alone, if any are named."""
    by_arm: dict[str, dict[int, Figures]] = {}
    for summary in sorted(path for folder in runs for path in folder.glob("*/summary.json")):
        arm, seed, figures = read(summary.parent)
        if not arms or arm in arms:
            by_arm.setdefault(arm, {})[seed] = figures
    return by_arm


def values(of_seeds: dict[int, Figures], seeds: list[int], cohort: str, metric: str) -> Values:
    """A metric of some seeds in P periods, in order: float64 [S, P]."""
    return np.array([[v for _, v in sorted(of_seeds[seed][cohort, metric].items())] for seed in seeds])


def with_draws(values: Values) -> Values:
    """Means over the periods, and over redrawn ones: float64 [S, 1 + DRAWS]. values: float64 [S, P]."""
    periods = values.shape[1]
    chosen = np.random.default_rng(0).integers(0, periods, (DRAWS, periods))
    return np.concatenate([values.mean(1, keepdims=True), values[:, chosen].mean(2)], 1)


def table(runs: list[Path], baseline: str, metrics: list[str], arms: list[str]) -> list[Row]:
    """A row per cohort, metric and arm: mean, difference, low, high, p, corrected (p, by Holm), seeds, candidates."""
    by_arm = read_all(runs, arms)
    if baseline not in by_arm:
        raise SystemExit(f"{', '.join(map(str, runs))}: no arm {baseline!r}; there are {', '.join(by_arm)}")
    rows: list[Row] = []
    for cohort in COHORTS:
        for metric in metrics:
            candidates = "candidates" + (f"_{metric.partition('_')[2]}" if "_" in metric else "")
            for arm in [baseline, *(a for a in by_arm if a != baseline)]:
                seeds = sorted(by_arm[arm].keys() & by_arm[baseline].keys())
                paired = arm != baseline and bool(seeds)
                seeds = seeds or sorted(by_arm[arm])
                ours = values(by_arm[arm], seeds, cohort, metric)
                row = {"cohort": cohort, "metric": metric, "arm": arm, "seeds": len(seeds), "mean": float(ours.mean())}
                row["candidates"] = float(values(by_arm[arm], seeds, cohort, candidates).mean())
                if paired:
                    base = values(by_arm[baseline], seeds, cohort, metric)
                    interval = contrast(with_draws(ours), with_draws(base), base.shape[1], paired=True)
                    row |= {"difference": float((ours - base).mean()), "low": None, "high": None, "p": None}
                    if interval:
                        row |= {"low": interval.low, "high": interval.high, "p": interval.p}
                rows.append(row)
        family = [row for row in rows if row["cohort"] == cohort and row.get("p") is not None]
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["corrected"] = p
    return rows


def printed(rows: list[Row]) -> str:
    """A table per cohort: an arm a line, a metric a column."""
    parts = []
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    for cohort, name in COHORTS.items():
        of_cohort = [row for row in rows if row["cohort"] == cohort]
        lines = []
        for arm in dict.fromkeys(row["arm"] for row in of_cohort):
            of_arm = [row for row in of_cohort if row["arm"] == arm]
            lines.append([f"`{arm}` ({of_arm[0]['seeds']})", *map(_cell, of_arm)])
        counts = {row["metric"]: f"{row['candidates']:.0f}" for row in of_cohort}
        lines.append(["candidates", *(counts[metric] for metric in metrics)])
        headers = ["arm (seeds)", *(f"{name}, {metric}" for metric in metrics)]
        parts.append(tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True))
    return "\n\n".join(parts)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of run folders")
    parser.add_argument("--baseline", default="pf", help="arm to compare with (default: pf)")
    parser.add_argument("--arms", default="", help="of these alone")
    parser.add_argument("--metrics", default=",".join(METRICS), help=f"(default: {','.join(METRICS)})")
    parser.add_argument("--out", type=Path, help="the rows, as JSON")
    args = parser.parse_args()
    rows = table(args.runs, args.baseline, args.metrics.split(","), [a for a in args.arms.split(",") if a])
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(printed(rows))


def _cell(row: Row) -> str:
    if row.get("difference") is None:
        return f"{row['mean']:.3f}"
    low, high, up = row["low"], row["high"], row["difference"] > 0
    if low is None:
        return f"{row['mean']:.3f}, {row['difference']:+.3f}"
    mark = ("▲" if up else "▼") if row["corrected"] <= 0.05 else ("△" if up else "▽") if row["p"] <= 0.05 else ""
    return f"{row['mean']:.3f}, {row['difference']:+.3f} ({low:+.3f} to {high:+.3f}){mark}"


if __name__ == "__main__":
    main()
