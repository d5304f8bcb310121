"""Pictures of a benchmark: what a gain costs, and recall over the periods of a stream."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coldrank.analysis.benchmark.outcome import Benchmark
from coldrank.analysis.compare.retrieval import Figures, RetrievalRow
from coldrank.analysis.compare.rows import Row
from coldrank.analysis.report.picture import DASHES, MARKERS, MUTED, color, mark, panel, svg
from coldrank.analysis.report.words import Picture, plain, signed
from coldrank.metrics.mann_whitney import FloatArray

MAX_LABELS = 6


def numbers_of(benchmark: Benchmark) -> dict[str, int]:
    """Method -> number of its colour and marker; the base is 0."""
    return {outcome.name: number for number, outcome in enumerate(benchmark.outcomes)}


def cost_picture(benchmark: Benchmark, rows: Sequence[Row], task: str, cohort: str) -> Picture | None:
    """The gain of AUC in a cohort over what training took, in times of the base; None where fewer than one method has
    both."""
    base = benchmark.outcomes[0].seconds
    gains = {
        row.arm: row
        for row in rows
        if (row.task, row.cohort, row.metric) == (task, cohort, "auc") and row.difference is not None
    }
    points = [
        (o, gains[o.name], o.seconds / base) for o in benchmark.outcomes if o.name in gains and o.seconds and base
    ]
    if not points:
        return None
    numbers, words = numbers_of(benchmark), []
    with panel(
        230, (f"AUC, {plain(cohort)}: difference to {benchmark.base}, points",), "training time, times the base"
    ) as (
        figure,
        [ax],
    ):
        ax.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
        ax.axvline(1, color=MUTED, linewidth=0.8, zorder=0)
        for outcome, row, times in points:
            n, difference = numbers[outcome.name], row.difference or 0.0
            style: dict[str, Any] = {"color": color(n), "marker": MARKERS[n % len(MARKERS)], "markersize": 5}
            mark(ax.plot([times], [difference], linestyle="none", **style), n)
            if row.low is not None and row.high is not None:
                mark(ax.vlines([times], row.low, row.high, color=color(n), linewidth=0.9, alpha=0.7), n)
            words.append(f"{outcome.name} {signed(row.difference)} points at {times:.2f} times")
        text = f"What a gain of {plain(task)} costs: {', '.join(words)}"
        return Picture(plain(task), svg(figure, f"cost-{task}-{cohort}", text))


def period_picture(
    benchmark: Benchmark, figures: Mapping[str, Mapping[int, Figures]], cohort: str, metric: str
) -> Picture | None:
    """A metric of a cohort by period above, each method's difference to the base below, means over the seeds; None
    where no run has it."""
    runs = [run.get((cohort, metric), {}) for of_arm in figures.values() for run in of_arm.values()]
    periods = sorted({period for run in runs for period in run})
    if not periods:
        return None
    numbers, words = numbers_of(benchmark), []
    base = _by_period(figures[benchmark.base], cohort, metric, periods)
    labels = (f"{metric}, {plain(cohort)}", f"difference to {benchmark.base}")
    with panel(270, labels, "period") as (figure, [above, below]):
        for name, of_arm in figures.items():
            n, values = numbers[name], _by_period(of_arm, cohort, metric, periods)
            style: dict[str, Any] = {"color": color(n), "linewidth": 1.4, "linestyle": DASHES[n % len(DASHES)]}
            mark(above.plot(values, marker="o", markersize=2.2, **style), n)
            if n:
                mark(below.plot(values - base, marker="o", markersize=2.2, **style), n)
            known = values[np.isfinite(values)]
            words.append(f"{name} {known.mean():.3f}" if len(known) else f"{name} none")
        below.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
        every = -(-len(periods) // MAX_LABELS)
        below.set_xticks(range(0, len(periods), every), periods[::every])
        text = f"{metric} of {plain(cohort)} over {len(periods)} periods, means: {', '.join(words)}"
        return Picture(plain(cohort), svg(figure, f"periods-{cohort}-{metric}", text))


def _by_period(runs: Mapping[int, Figures], cohort: str, metric: str, periods: Sequence[str]) -> FloatArray:
    """Mean over the seeds, float64 [P]; nan where a seed has no value."""
    values = [[run.get((cohort, metric), {}).get(period, np.nan) for period in periods] for run in runs.values()]
    return np.array(values).mean(axis=0)


def interval_picture(benchmark: Benchmark, rows: Sequence[RetrievalRow], cohort: str, metric: str) -> Picture | None:
    """The difference of each method to the base with its interval; None where no method has one."""
    shown = [r for r in rows if (r.cohort, r.metric) == (cohort, metric) and r.difference is not None]
    if not shown:
        return None
    numbers, words = numbers_of(benchmark), []
    title = f"{metric}, {plain(cohort)}: difference to {benchmark.base}"
    with panel(200, (title,), "method") as (figure, [ax]):
        ax.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
        for x, row in enumerate(shown):
            n, difference = numbers[row.arm], row.difference or 0.0
            style: dict[str, Any] = {"color": color(n), "marker": MARKERS[n % len(MARKERS)], "markersize": 5}
            mark(ax.plot([x], [difference], linestyle="none", **style), n)
            if row.low is not None and row.high is not None:
                mark(ax.vlines([x], row.low, row.high, color=color(n), linewidth=1.2), n)
            words.append(f"{row.arm} {row.text}")
        ax.set_xlim(-0.6, len(shown) - 0.4)
        ax.set_xticks([])
        return Picture(plain(cohort), svg(figure, f"interval-{cohort}-{metric}", f"{title}: {'; '.join(words)}"))
