"""Recall and NDCG of arms on a stream with differences to a baseline, over seeds and scored periods.

A difference is the mean over seeds and periods. Its 95% interval (interval.py) takes runs of the same seed as pairs and
redraws the periods, of which there are few, in the place of users. An arm is compared on the seeds that the baseline
has too, in the periods that all of them have.

Intervals are not corrected; verdicts are, by Holm's method: of cold items, and of popular ones, all differences of all
arms in the metrics that are asked for are one family. ▲ ▼: holds after it; △ ▽: the interval alone leaves 0 out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tabulate import tabulate

from coldrank.analysis.compare.interval import contrast, holm
from coldrank.data.errors import UserError
from coldrank.data.json_files import ROW_FIELDS, read_lines, read_object
from coldrank.data.split import NEXT
from coldrank.metrics.mann_whitney import FloatArray

COHORTS = {"cold_item": "cold", "popular_item": "popular"}
DRAWS = 300
METRICS = ("recall@5", "recall@5_of_100", "recall@5_of_all")
LEVEL = 0.05
# (cohort, metric) -> period -> value.
Figures = dict[tuple[str, str], dict[str, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalRow:
    """One arm in one cohort and metric."""

    cohort: str
    """The cohort."""
    metric: str
    """The metric."""
    arm: str
    """The arm."""
    seeds: int
    """Its runs; of an arm that is compared, those whose seeds the baseline has too."""
    mean: float
    """Over seeds and periods."""
    candidates: float | None = None
    """Users that an item's own user was among, on average."""
    difference: float | None = None
    """To the baseline; None for the baseline, and for an arm of other seeds."""
    low: float | None = None
    """Lower end of its 95% interval."""
    high: float | None = None
    """Upper end of its 95% interval."""
    p: float | None = None
    """Two-sided, of the same t as the interval."""
    corrected: float | None = None
    """After Holm's correction over the cohort's family."""

    @property
    def mark(self) -> str:
        """▲ ▼ after the correction, △ ▽ before it only; empty: no difference can be told."""
        if self.difference is None or self.p is None or self.corrected is None:
            return ""
        up = self.difference > 0
        return ("▲" if up else "▼") if self.corrected <= LEVEL else ("△" if up else "▽") if self.p <= LEVEL else ""

    @property
    def text(self) -> str:
        """The mean, and the difference with its interval and mark."""
        if self.difference is None:
            return f"{self.mean:.3f}"
        if self.low is None:
            return f"{self.mean:.3f}, {self.difference:+.3f}"
        return f"{self.mean:.3f}, {self.difference:+.3f} ({self.low:+.3f} to {self.high:+.3f}){self.mark}"


def read_figures(run: Path) -> tuple[str, int, Figures]:
    """A run's arm, seed and figures of the scored periods."""
    config = read_object(run / "config.json")
    figures: Figures = {}
    for row in read_lines(run / "metrics.jsonl", *ROW_FIELDS):
        if row["period"] and row["split"] == NEXT and row["value"] is not None:
            figures.setdefault((row["cohort"], row["metric"]), {})[row["period"]] = row["value"]
    return config["name"], config["seed"], figures


def read_arms_figures(runs: Sequence[Path]) -> dict[str, dict[int, Figures]]:
    """Arm -> seed -> its figures, of run folders."""
    by_arm: dict[str, dict[int, Figures]] = {}
    for run in runs:
        arm, seed, figures = read_figures(run)
        by_arm.setdefault(arm, {})[seed] = figures
    return by_arm


def retrieval_rows(
    by_arm: Mapping[str, Mapping[int, Figures]], baseline: str, metrics: Sequence[str]
) -> list[RetrievalRow]:
    """A row per cohort, metric and arm, the baseline first; none of what no run has. Raises UserError for a baseline
    that is not there."""
    if baseline not in by_arm:
        raise UserError(f"no arm {baseline!r}; there are {', '.join(by_arm)}")
    rows: list[RetrievalRow] = []
    for cohort in COHORTS:
        of_cohort: list[RetrievalRow] = []
        for metric in metrics:
            for arm in [baseline, *(a for a in by_arm if a != baseline)]:
                of_cohort += _row(by_arm[arm], by_arm[baseline] if arm != baseline else {}, arm, cohort, metric)
        p = [row.p for row in of_cohort if row.p is not None]
        corrected = iter(holm(p))
        rows += [row if row.p is None else replace(row, corrected=next(corrected)) for row in of_cohort]
    return rows


def _row(
    arm: Mapping[int, Figures], baseline: Mapping[int, Figures], name: str, cohort: str, metric: str
) -> list[RetrievalRow]:
    """The row of an arm; none where it has no value. baseline: empty for the baseline itself."""
    paired = sorted(arm.keys() & baseline.keys())
    seeds = paired or sorted(arm)
    sides = [
        [side[seed].get((cohort, metric), {}) for seed in seeds] for side in ([arm, baseline] if paired else [arm])
    ]
    periods = sorted(set.intersection(*(set(run) for side in sides for run in side)))
    if not periods:
        return []
    ours, *base = (np.array([[run[period] for period in periods] for run in side]) for side in sides)
    among = "candidates" + (f"_{metric.partition('_')[2]}" if "_" in metric else "")
    counts = [v for seed in seeds for p, v in arm[seed].get((cohort, among), {}).items() if p in periods]
    row = RetrievalRow(
        cohort=cohort,
        metric=metric,
        arm=name,
        seeds=len(seeds),
        mean=float(ours.mean()),
        candidates=float(np.mean(counts)) if counts else None,
    )
    if not base:
        return [row]
    row = replace(row, difference=float((ours - base[0]).mean()))
    interval = contrast(_with_draws(ours), _with_draws(base[0]), len(periods), paired=True)
    return [replace(row, low=interval.low, high=interval.high, p=interval.p) if interval else row]


def _with_draws(values: FloatArray) -> FloatArray:
    """Means over the periods, and over redrawn ones: float64 [S, 1 + DRAWS]. values: float64 [S, P]."""
    periods = values.shape[1]
    chosen = np.random.default_rng(0).integers(0, periods, (DRAWS, periods))
    return np.concatenate([values.mean(1, keepdims=True), values[:, chosen].mean(2)], 1)


def format_retrieval(rows: Sequence[RetrievalRow]) -> str:
    """A Markdown table per cohort: an arm a line, a metric a column."""
    parts = []
    metrics = list(dict.fromkeys(row.metric for row in rows))
    for cohort, name in COHORTS.items():
        cells = {(row.arm, row.metric): row for row in rows if row.cohort == cohort}
        lines = []
        for arm in dict.fromkeys(arm for arm, _ in cells):
            of_arm = [cells.get((arm, metric)) for metric in metrics]
            seeds = next(row.seeds for row in of_arm if row)
            lines.append([f"`{arm}` ({seeds})", *(row.text if row else "-" for row in of_arm)])
        counts = {m: c for (_, m), row in cells.items() if (c := row.candidates) is not None}
        lines.append(["candidates", *(f"{counts[m]:.0f}" if m in counts else "-" for m in metrics)])
        headers = ["arm (seeds)", *(f"{name}, {metric}" for metric in metrics)]
        parts.append(str(tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)))
    return "\n\n".join(parts)
