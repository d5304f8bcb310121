"""Streams of periods: the metrics of each period before it was trained on, and what later models remember of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from coldrank.analysis.compare.compare import PERCENT
from coldrank.analysis.compare.runs import ScoredRun
from coldrank.analysis.report.arms import ReportedArm
from coldrank.analysis.report.picture import DASHES, MUTED, color, mark, panel, svg
from coldrank.analysis.report.words import TITLES, Picture, listed, number, plain, signed
from coldrank.data.json_files import ROW_FIELDS, read_lines
from coldrank.data.split import BACK, NEXT
from coldrank.metrics.mann_whitney import FloatArray

DRIFT = ("auc", "ne")
MAX_LABELS = 6
OUTSIDE = 4.0  # what lies further from the middle half than so many times its height is beyond the picture
_LAG_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.5, 1)))
# (task, metric, periods between training and the model; -1: before training) -> period -> value.
PeriodFigures = dict[tuple[str, str, int], dict[str, float]]


def period_pictures(arms: Sequence[ReportedArm], tasks: Sequence[str]) -> dict[str, list[Picture]]:
    """`auc` and `ne` of the next period, and what is forgotten, `back`: a picture per task.

    None where no run is of a stream.
    """
    figures = {arm.number: [_figures(run) for run in arm.runs] for arm in arms}
    drawn = {metric: [_drift_picture(arms, figures, task, metric) for task in tasks] for metric in DRIFT}
    drawn["back"] = [_back_picture(arms, figures, task) for task in tasks]
    return {name: [picture for picture in pictures if picture] for name, pictures in drawn.items()}


def _figures(run: ScoredRun) -> PeriodFigures:
    """What a run measured on all users and items, per period."""
    path, ends = run.folder / "metrics.jsonl", run.facts.get("periods") or {}
    if not path.is_file() or not ends:
        return {}
    names = sorted(ends)
    after = {step: names.index(name) for name, step in ends.items()}
    figures: PeriodFigures = {}
    for row in (row for row in read_lines(path, *ROW_FIELDS) if row["split"] in (NEXT, BACK)):
        period, is_next = row["period"], row["split"] == NEXT
        if row["cohort"] != "all" or row["metric"] not in DRIFT or row["value"] is None or period not in ends:
            continue
        if is_next or row["step"] in after:
            lag = -1 if is_next else after[row["step"]] - names.index(period)
            figures.setdefault((row["task"], row["metric"], lag), {})[period] = PERCENT * row["value"]
    return figures


def _values(figures: Sequence[PeriodFigures], key: tuple[str, str, int], periods: Sequence[str]) -> FloatArray:
    """Values in percent of S seeds in P periods, float64 [S, P]; nan where a seed has none."""
    return np.array([[seed.get(key, {}).get(period, np.nan) for period in periods] for seed in figures])


def _periods(figures: dict[int, list[PeriodFigures]], keys: Sequence[tuple[str, str, int]]) -> list[str]:
    return sorted({p for runs in figures.values() for run in runs for key in keys for p in run.get(key, {})})


def _drift_picture(
    arms: Sequence[ReportedArm], figures: dict[int, list[PeriodFigures]], task: str, metric: str
) -> Picture | None:
    """A metric by period above, each arm's difference to the baseline below."""
    key = (task, metric, -1)
    periods = _periods(figures, [key])
    if not periods:
        return None
    means, words = [], []
    with panel(270, (f"{TITLES[metric]}, %", f"difference to {arms[0].name}, points"), "period") as (
        figure,
        [above, below],
    ):
        for arm in arms:
            values = _values(figures[arm.number], key, periods)
            means.append(values.mean(axis=0))  # a gap where a seed has no value
            if len(values) > 1:
                mark(above.plot(values.T, color=color(arm.number), linewidth=0.5, alpha=0.4), arm.number)
            _line(above, arm, means[-1], DASHES[arm.number % len(DASHES)])
            if arm.number:
                _line(below, arm, means[-1] - means[0], DASHES[arm.number % len(DASHES)])
                words.append(f"{arm.name} {_mean(means[-1] - means[0], signed)} points from {arms[0].name}")
        _finish(above, below, periods)
        level = f"{TITLES[metric]} of the next period of {plain(task)}; mean of {len(periods)} periods: "
        text = level + ", ".join([f"{arms[0].name} {_mean(means[0], number)} percent", *words])
        return Picture(plain(task), svg(figure, f"next-{metric}-{task}", text))


def _back_picture(arms: Sequence[ReportedArm], figures: dict[int, list[PeriodFigures]], task: str) -> Picture | None:
    """AUC on a period's sample by the model soon after it above, the change up to later models below."""
    lags = sorted(
        {k[2] for runs in figures.values() for run in runs for k in run if k[:2] == (task, "auc") and k[2] >= 0}
    )
    if len(lags) < 2:
        return None
    periods = _periods(figures, [(task, "auc", lag) for lag in lags])
    labels = (f"AUC {_later(lags[0])}, %", f"change until {listed([_later(lag) for lag in lags[1:]])}, points")
    words = []
    with panel(270, labels, "period that is scored") as (figure, [above, below]):
        for arm in arms:
            first, *others = (_values(figures[arm.number], (task, "auc", lag), periods).mean(axis=0) for lag in lags)
            _line(above, arm, first, DASHES[arm.number % len(DASHES)])
            for i, (lag, other) in enumerate(zip(lags[1:], others, strict=True)):
                _line(below, arm, other - first, _LAG_DASHES[i % len(_LAG_DASHES)])
                words.append(f"{arm.name} {_mean(other - first, signed)} points until {_later(lag)}")
        _finish(above, below, periods)
        text = f"What is remembered of past periods of {plain(task)}, mean change of AUC: {', '.join(words)}"
        note = "the longer ago, the more broken the line" if len(lags) > 2 else ""
        return Picture(plain(task), svg(figure, f"back-{task}", text), note)


def _later(lag: int) -> str:
    return "just trained" if lag == 0 else f"{lag} period{'s' if lag > 1 else ''} later"


def _mean(values: FloatArray, show: Any) -> str:
    known = values[~np.isnan(values)]
    return str(show(float(known.mean()) if len(known) else None))


def _line(ax: Axes, arm: ReportedArm, values: FloatArray, dashes: Any) -> None:
    style: dict[str, Any] = {"color": color(arm.number), "linewidth": 1.6, "linestyle": dashes}
    # A point between two gaps would not be seen without its marker.
    mark(ax.plot(values, marker="o", markersize=2.2, **style), arm.number)


def _finish(above: Axes, below: Axes, periods: Sequence[str]) -> None:
    """Bounds, the zero line, and the periods' names: of days of one year without the year."""
    for ax in (above, below):
        lines = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in ax.lines])
        known = np.append(lines[~np.isnan(lines)], [0.0] if ax is below else [])
        if len(known):  # the first periods may be far from all others: they are not to flatten these
            first, third = np.quantile(known, (0.25, 0.75))
            low = max(known.min(), first - OUTSIDE * (third - first))
            high = min(known.max(), third + OUTSIDE * (third - first))
            margin = 0.06 * (high - low) or 0.01
            ax.set_ylim(low - margin, high + margin)
    below.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
    one_year = len(periods[0]) == len("2022-05-04") and len({p[:4] for p in periods}) == 1
    every = -(-len(periods) // MAX_LABELS)
    below.set_xticks(range(0, len(periods), every), [p[5 * one_year :] for p in periods[::every]])
