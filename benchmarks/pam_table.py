"""Recall and NDCG of PAM's arms with differences to a baseline, over seeds and scored periods.

    python benchmarks/pam_table.py RUNS [--baseline pf] [--metrics recall@5,recall@5_of_100,recall@5_of_all] [--out table.json]

RUNS: folder of run folders, as `coldrank train --arms ... --seeds ...` leaves it. A difference is the mean over seeds and periods; its
95% interval, that of `coldrank compare`, takes runs of the same seed as pairs and redraws the periods, of which there are few, in the
place of users. Seeds that not all chosen arms have are left out.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from coldrank.train.compare.interval import contrast

COHORTS = {"cold_item": "cold", "popular_item": "popular"}
DRAWS = 300
Values = NDArray[np.float64]


def read(folder: Path) -> tuple[str, int, dict[tuple[str, str], dict[str, float]]]:
    """A run's arm and seed, and (cohort, metric) -> period -> value."""
    config = json.loads((folder / "config.json").read_text())
    found: dict[tuple[str, str], dict[str, float]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["period"] and row["split"] == "next" and row["value"] is not None:
            found.setdefault((row["cohort"], row["metric"]), {})[row["period"]] = row["value"]
    return config["name"], config["seed"], found


def arrays(runs: Path, arms: list[str]) -> tuple[list[int], dict[tuple[str, str, str], Values]]:
    """The seeds that all arms have, and (arm, cohort, metric) -> values [S, P]. arms: of these alone, if any are named."""
    of_run = {}
    for summary in sorted(runs.glob("*/summary.json")):
        arm, seed, values = read(summary.parent)
        if not arms or arm in arms:
            of_run[arm, seed] = values
    names = dict.fromkeys(arm for arm, _ in of_run)
    seeds = [s for s in sorted({s for _, s in of_run}) if all((arm, s) in of_run for arm in names)]
    if not seeds:
        raise SystemExit(f"{runs}: no seed that all of the arms {', '.join(names)} have")
    found = {}
    for arm in names:
        for cohort, metric in of_run[arm, seeds[0]]:
            rows = [of_run[arm, seed][cohort, metric] for seed in seeds]
            found[arm, cohort, metric] = np.array([[row[period] for period in sorted(rows[0])] for row in rows])
    return seeds, found


def with_draws(values: Values) -> Values:
    """[S, P] -> means over the periods, and over redrawn ones, [S, 1 + DRAWS]."""
    periods = values.shape[1]
    chosen = np.random.default_rng(0).integers(0, periods, (DRAWS, periods))
    return np.concatenate([values.mean(1, keepdims=True), values[:, chosen].mean(2)], 1)


def table(runs: Path, baseline: str, metrics: list[str], arms: list[str]) -> list[dict[str, str | float | int | None]]:
    """A row per cohort, metric and arm: mean, difference, low, high, seeds, candidates."""
    seeds, found = arrays(runs, arms)
    names = dict.fromkeys(arm for arm, _, _ in found)
    if baseline not in names:
        raise SystemExit(f"{runs}: no arm {baseline!r}; there are {', '.join(names)}")
    rows: list[dict[str, str | float | int | None]] = []
    for cohort in COHORTS:
        for metric in metrics:
            base = found[baseline, cohort, metric]
            candidates = "candidates" + (f"_{metric.partition('_')[2]}" if "_" in metric else "")
            for arm in [baseline, *(a for a in names if a != baseline)]:
                own = found[arm, cohort, metric]
                row = {"cohort": cohort, "metric": metric, "arm": arm, "seeds": len(seeds), "mean": float(own.mean())}
                row["candidates"] = float(found[arm, cohort, candidates].mean())
                if arm != baseline:
                    interval = contrast(with_draws(own), with_draws(base), base.shape[1], paired=True)
                    low, high = (interval.low, interval.high) if interval else (None, None)
                    row |= {"difference": float((own - base).mean()), "low": low, "high": high}
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
            lines.append([metric, arm, *(text for row in cells for text in _cells(row))])
    headers = ["metric", f"arm ({rows[0]['seeds']} seeds)"]
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
