"""Pictures of docs/metacf.md, docs/mwuf.md, docs/pam.md and docs/performance.md, from what the experiments wrote.

python benchmarks/figures.py metacf --results OUT/table.json --out docs/metacf.svg
python benchmarks/figures.py warm_up --results OUT/results.jsonl --model deepfm --out docs/results/new_items.svg
python benchmarks/figures.py pam --results table.json --out docs/pam.svg
python benchmarks/figures.py arms --results COMPARISON/compare.json --out docs/results/table5.svg
python benchmarks/figures.py late --results OUT/late.json --out docs/results/late_features.svg
python benchmarks/figures.py growth --results growth.json --out docs/growth.svg
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

STYLE = {"svg.fonttype": "none", "svg.hashsalt": "coldrank", "font.size": 9, "axes.grid": True, "grid.linewidth": 0.4}
SUPPORTS = (1, 2, 5, 10)
METACF = {
    "popularity": "popularity",
    "bpr_5": "BPR, 5 steps",
    "bpr": "BPR",
    "bpr_tuned": "BPR, tuned",
    "bpr_tuned_64": "BPR, tuned, 64 wide",
    "melu": "MeLU",
    "metacf_general": "MetaCF general",
    "metacf_linear": "MetaCF linear",
    "metacf_neural": "MetaCF neural",
    "metacf_neural_64": "MetaCF neural, 64 wide",
    "ials": "iALS",
    "ease": "EASE",
    "ease_and_ials_equal": "EASE and iALS, 1 to 1",
    "ease_and_ials": "EASE and iALS",
    "ours_no_steps": "ours, no steps",
    "ours": "ours",
    "ours_and_ease": "ours and EASE",
}
LINES = ("popularity", "bpr_tuned", "metacf_neural", "ials", "ease", "ease_and_ials", "ours", "ours_and_ease")
# HR@10 in Table 2 of Peng et al. (2021), MovieLens.
PAPER = {
    "bpr_5": 0.0341,
    "bpr": 0.0656,
    "melu": 0.0220,
    "metacf_general": 0.0444,
    "metacf_linear": 0.0565,
    "metacf_neural": 0.0694,
}
GROWS = {
    "rows": "rows of each table",
    "length": "events in the history",
    "batch": "samples in a batch",
    "experts": "experts",
    "tasks": "tasks",
    "ranks": "ranks",
}
PHASES = ("cold", "warm-a", "warm-b", "warm-c")


def metacf(results: Path) -> Figure:
    """HR@10 of the arms with 95% intervals, and the paper's; by the number of records. Of arms that have all seeds."""
    table = json.loads(results.read_text())
    rows = {row["arm"]: row for row in table if row["seeds"] == max(row["seeds"] for row in table)}
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    arms = [name for name in reversed(METACF) if name in rows]
    for i, name in enumerate(arms):
        value, low, high = rows[name]["hr"]
        left.plot([low, high], [i, i], color="C0", linewidth=1)
        left.plot(value, i, "o", color="C0", markersize=4, label="here, 95% interval" if i == 0 else None)
    paper = [name for name in arms if name in PAPER]
    left.plot(
        [PAPER[n] for n in paper], [arms.index(n) for n in paper], "D", color="0.5", fillstyle="none", label="paper"
    )
    left.set_yticks(range(len(arms)), [METACF[name] for name in arms])
    left.set_xlabel("HR@10 of new users with 2.8 records on average")
    left.legend(frameon=False, fontsize=7)
    for name in (n for n in LINES if f"{n}-1" in rows):
        sizes = [n for n in SUPPORTS if f"{name}-{n}" in rows]
        style = "--" if name in ("popularity", "ials", "ease", "ease_and_ials") else "-"
        values = [rows[f"{name}-{n}"]["hr"][0] for n in sizes]
        right.plot(sizes, values, style, marker="o", markersize=3, label=METACF[name])
    right.set_xticks(SUPPORTS)
    right.set_xlabel("records of a new user")
    right.set_ylabel("HR@10")
    right.legend(frameon=False, fontsize=6, loc="upper left")
    return figure


def warm_up(results: Path, model: str) -> Figure:
    """AUC on the test set in the four phases, a panel for each number of passes. Of methods that have all seeds."""
    rows = [r for line in results.read_text().splitlines() if (r := json.loads(line))["model"] == model]
    figure = Figure(figsize=(8.5, 3.2), layout="constrained")
    counts = Counter(r["method"] for r in rows)
    methods = [name for name, count in counts.items() if count == max(counts.values())]
    for axes, passes in zip(figure.subplots(1, 3, sharey=True), (1, 5, 20), strict=True):
        for i, method in enumerate(methods):
            runs = [row for row in rows if (row["method"], row["passes"]) == (method, passes)]
            aucs = [[100 * auc[0] for auc in row["fixed"]] for row in runs]
            if aucs:
                style = "-" if method.startswith("posterior") else "--"
                axes.plot(PHASES, np.mean(aucs, 0), style, color=f"C{i % 10}", marker="o", markersize=3, label=method)
        axes.set_title(f"{passes} pass{'es' if passes > 1 else ''} over each warm set", fontsize=9)
    figure.axes[0].set_ylabel("AUC, %")
    figure.axes[-1].legend(frameon=False, fontsize=7)
    return figure


def pam(results: Path) -> Figure:
    """Differences of PAM's arms to the first arm with 95% intervals: cold and popular items, a mark for each metric,
    full where the difference holds after the correction for their number."""
    rows = json.loads(results.read_text())
    kinds = {"recall@5": "in the batch", "recall@5_of_100": "of 100 users", "recall@5_of_all": "of all users"}
    arms = list(dict.fromkeys(row["arm"] for row in rows if row.get("low") is not None))[::-1]
    figure = Figure(figsize=(8.5, 0.6 + 0.4 * len(arms)), layout="constrained")
    for axes, cohort in zip(figure.subplots(1, 2, sharey=True), ("cold_item", "popular_item"), strict=True):
        for row in (row for row in rows if row["cohort"] == cohort and row.get("low") is not None):
            kind = list(kinds).index(row["metric"])
            height = arms.index(row["arm"]) + 0.22 * (1 - kind)
            color, label = f"C{kind}", kinds[row["metric"]] if row["arm"] == arms[0] else None
            axes.plot([row["low"], row["high"]], [height, height], color=color, linewidth=1)
            face = color if row["corrected"] <= 0.05 else "white"
            axes.plot(row["difference"], height, "o", color=color, markerfacecolor=face, markersize=4, label=label)
        axes.axvline(0, color="0.4", linewidth=0.8)
        axes.set_yticks(range(len(arms)), arms)
        axes.set_xlabel(f"{cohort.replace('_', ' ')}s: Recall@5 less that of {rows[0]['arm']}, 95% interval")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    title = "open: may be chance; full: holds after the correction for the number of differences"
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=8, title=title)
    return figure


def growth(results: Path) -> Figure:
    """CPU time per sample by each dimension of the work, both axes logarithmic and the time's the same."""
    curves = json.loads(results.read_text())
    figure = Figure(figsize=(8.5, 4.6), layout="constrained")
    panels = figure.subplots(2, 3, sharey=True)
    for axes, (name, curve) in zip(panels.flat, curves.items(), strict=False):
        axes.plot(curve["sizes"], curve["microseconds"], "o-", markersize=4)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(GROWS[name])
        axes.set_xticks(curve["sizes"], [_short(n) for n in curve["sizes"]], fontsize=7)
        axes.minorticks_off()
        axes.set_yticks(ticks := [25, 50, 100, 200], list(map(str, ticks)))
        axes.set_title(f"slope at the end {curve['slope']:.2f}", fontsize=9)
    for axes in panels[:, 0]:
        axes.set_ylabel("CPU µs per sample")
    return figure


def arms(results: Path, cohort: str, tasks: Sequence[str]) -> Figure:
    """Differences of a comparison's arms to its baseline in a cohort, with 95% intervals: AUC, NE and GAUC, by task.
    tasks: those to show; empty: all."""
    content = json.loads(results.read_text())
    rows = [r for r in content["rows"] if r["cohort"] == cohort and r["difference"] is not None]
    rows = [r for r in rows if not tasks or r["task"] in tasks]
    names, tasks = (list(dict.fromkeys(r[field] for r in rows)) for field in ("arm", "task"))
    figure = Figure(figsize=(8.5, 0.8 + 0.32 * len(names) * max(1, len(tasks) / 3)), layout="constrained")
    panels = {"auc": "AUC, points: right is better", "ne": "NE, points: left is better", "gauc": "GAUC, points"}
    for axes, (metric, words) in zip(figure.subplots(1, 3, sharey=True), panels.items(), strict=True):
        for row in (r for r in rows if r["metric"] == metric):
            kind, place = tasks.index(row["task"]), names[::-1].index(row["arm"])
            height = place + 0.6 * (0.5 - (kind + 0.5) / len(tasks))
            axes.plot([row["low"], row["high"]], [height, height], color=f"C{kind}", linewidth=1)
            label = row["task"].replace("_", " ") if row["arm"] == names[0] else None
            axes.plot(row["difference"], height, "o", color=f"C{kind}", markersize=3.5, label=label)
        axes.axvline(0, color="0.4", linewidth=0.8)
        axes.set_yticks(range(len(names)), names[::-1])
        axes.set_xlabel(words)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=8)
    return figure


def late(results: Path) -> Figure:
    """Long view and click: what late counters cost the base, and what each arm adds to the base that is as late, of new
    users and new videos, with 95% intervals."""
    content = json.loads(results.read_text())
    rows, refresh = content["rows"], content["refresh"]
    figure = Figure(figsize=(8.5, 5.2), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True)
    cohorts = {"all": "all", "new_user": "new users", "new_item": "new videos"}
    for line, task in zip(panels, ("long_view", "click"), strict=True):
        for axes, (cohort, words) in zip(line, cohorts.items(), strict=True):
            chosen = [r for r in rows if (r["task"], r["cohort"], r["metric"]) == (task, cohort, "auc")]
            names = [a for a in dict.fromkeys(r["arm"] for r in chosen) if a != "base"]
            for i, name in enumerate(("base", *names)):
                of = {
                    r["refresh"]: r for r in chosen if r["arm"] == name and (r["of"] == "lateness") == (name == "base")
                }
                of = {n: r for n, r in of.items() if r["difference"] is not None}
                x = [refresh.index(n) + 0.08 * (i - len(names) / 2) for n in of]
                y, half = [r["difference"] for r in of.values()], [r["high"] - r["difference"] for r in of.values()]
                style = {"color": "0.4"} if name == "base" else {"color": f"C{i - 1}"}
                label = "base, against itself in time" if name == "base" else name
                axes.errorbar(x, y, half, fmt="o-", markersize=3, linewidth=0.9, elinewidth=0.7, label=label, **style)
            axes.axhline(0, color="0.4", linewidth=0.8)
            axes.set_xticks(range(len(refresh)), refresh)
            axes.set_title(f"{task.replace('_', ' ')}, {words}", fontsize=9)
        line[0].set_ylabel("difference of AUC, points")
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=7
    )
    return figure


def _short(n: int) -> str:
    return f"{n:,}" if n < 10_000 else f"{n // 1000}k" if n < 1_000_000 else f"{n // 1_000_000}M"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("metacf", "warm_up", "pam", "growth", "late", "arms"))
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="deepfm", help="of warm_up")
    parser.add_argument("--cohort", default="new_user", help="of arms")
    parser.add_argument("--tasks", nargs="*", default=[], help="of arms (default: all)")
    args = parser.parse_args()
    with mpl.rc_context(STYLE):
        warm = lambda results: warm_up(results, args.model)
        of_cohort = lambda results: arms(results, args.cohort, args.tasks)
        make = {"metacf": metacf, "warm_up": warm, "pam": pam, "growth": growth, "late": late, "arms": of_cohort}[
            args.what
        ]
        figure = make(args.results)
        figure.savefig(args.out)


if __name__ == "__main__":
    main()
