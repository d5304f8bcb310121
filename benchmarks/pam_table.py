"""Recall and NDCG of PAM's arms with differences to a baseline, over seeds and scored periods.

    python benchmarks/pam_table.py RUNS [--baseline pf] [--metrics recall@5,recall@5_of_all] [--out table.json]

RUNS: folder of run folders, as `coldrank train --arms ... --seeds ...` leaves it. A difference is the mean over seeds
and periods. Its 95% interval, that of `coldrank compare`, takes runs of the same seed as pairs and redraws the periods,
of which there are few, in the place of users. An arm is compared on the seeds that the baseline has too.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from coldrank.analysis.compare.interval import contrast

COHORTS = {"cold_item": "cold", "popular_item": "popular"}
DRAWS = 300
Values = NDArray[np.float64]
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


def read_all(runs: Path, arms: list[str]) -> dict[str, dict[int, Figures]]:
    """Arm -> seed -> its figures, of runs that have ended. arms: of these alone, if any are named."""
    by_arm: dict[str, dict[int, Figures]] = {}
    for summary in sorted(runs.glob("*/summary.json")):
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


def table(runs: Path, baseline: str, metrics: list[str], arms: list[str]) -> list[dict[str, str | float | int | None]]:
    """A row per cohort, metric and arm: mean, difference, low, high, seeds, candidates."""
    by_arm = read_all(runs, arms)
    if baseline not in by_arm:
        raise SystemExit(f"{runs}: no arm {baseline!r}; there are {', '.join(by_arm)}")
    rows: list[dict[str, str | float | int | None]] = []
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
                    low, high = (interval.low, interval.high) if interval else (None, None)
                    row |= {"difference": float((ours - base).mean()), "low": low, "high": high}
                rows.append(row)
    return rows


def main() -> None:
    """Prints a table per metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of run folders")
    parser.add_argument("--baseline", default="pf", help="arm to compare with (default: pf)")
    parser.add_argument("--arms", default="", help="of these alone")
    parser.add_argument("--metrics", default="recall@5,recall@10,recall@20,ndcg@5,recall@5_of_100,recall@5_of_all")
    parser.add_argument("--out", type=Path, help="the rows, as JSON")
    args = parser.parse_args()
    rows = table(args.runs, args.baseline, args.metrics.split(","), [a for a in args.arms.split(",") if a])
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    lines = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        for arm in dict.fromkeys(row["arm"] for row in rows):
            cells = [row for row in rows if (row["metric"], row["arm"]) == (metric, arm)]
            lines.append([metric, f"{arm} ({cells[0]['seeds']})", *(text for row in cells for text in _cells(row))])
    headers = ["metric", "arm (seeds)"]
    for name in COHORTS.values():
        headers += [name, "difference, 95% interval", "candidates"]
    print(tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True))


def _cells(row: dict[str, str | float | int | None]) -> tuple[str, str, str]:
    if row.get("difference") is None:
        return f"{row['mean']:.3f}", "", f"{row['candidates']:.0f}"
    low, high = row["low"], row["high"]
    interval = "" if low is None else f" ({low:+.3f} to {high:+.3f})"
    return f"{row['mean']:.3f}", f"{row['difference']:+.3f}{interval}", f"{row['candidates']:.0f}"


if __name__ == "__main__":
    main()
