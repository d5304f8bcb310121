"""Learning curves: loss by step while fitting, a thin line per seed and a thick one for their mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from coldrank.analysis.report.arms import ReportedArm
from coldrank.analysis.report.picture import DASHES, color, mark, panel, svg
from coldrank.analysis.report.words import Picture, plain
from coldrank.metrics.mann_whitney import FloatArray
from coldrank.train.gates import WEIGHT

POINTS = 80


def learning_pictures(arms: Sequence[ReportedArm], tasks: Sequence[str], numbers: Sequence[str] = ()) -> list[Picture]:
    """The fit loss, then each task's log loss, or loss of a task of numbers; one that no run logged has no picture."""
    wanted = [("all", "loss", "Loss of all tasks"), *((task, "logloss", plain(task)) for task in tasks)]
    wanted += [(task, "loss", plain(task)) for task in numbers]
    pictures = []
    for task, metric, title in wanted:
        curves = {arm.number: curves_of(arm, task, metric) for arm in arms}
        if any(len(steps) for steps, _ in curves.values()):
            unit = "nats" if not numbers or metric == "logloss" else "loss"
            pictures.append(_picture(arms, curves, title, f"learn-{task}", unit))
    return pictures


def gate_pictures(arms: Sequence[ReportedArm]) -> list[Picture]:
    """How far the gates of every part have gone from rest; none where no run has gates."""
    pictures = []
    metrics = sorted(
        {row["metric"] for arm in arms for c in arm.curves for row in c if row["metric"].startswith(WEIGHT)}
    )
    for metric in metrics:
        curves = {arm.number: curves_of(arm, "all", metric) for arm in arms}
        part = metric.removeprefix(WEIGHT)
        pictures.append(_picture(arms, curves, f"Gates of {plain(part)}", f"gates-{part}", "weight"))
    return pictures


def curves_of(arm: ReportedArm, task: str, metric: str) -> tuple[FloatArray, FloatArray]:
    """Steps, float64 [P], and values, float64 [S, P], of the S seeds that logged the metric; nan where a seed has none.

    Of more than 80 logged steps, means over 80 even spans of steps.
    """
    series = [
        np.array([[row["step"], row["value"]] for row in curve if (row["task"], row["metric"]) == (task, metric)])
        for curve in arm.curves
    ]
    series = [points for points in series if len(points)]
    if not series:
        return np.empty(0), np.empty((0, 0))
    steps = np.unique(np.concatenate([points[:, 0] for points in series]))
    if len(steps) > POINTS:
        width = steps[-1] / POINTS
        steps = (np.arange(POINTS) + 0.5) * width
        codes = [np.minimum(points[:, 0] // width, POINTS - 1).astype(int) for points in series]
    else:
        codes = [np.searchsorted(steps, points[:, 0]) for points in series]
    values = np.full((len(series), len(steps)), np.nan)
    for row, code, points in zip(values, codes, series, strict=True):
        count = np.bincount(code, minlength=len(steps))
        total = np.bincount(code, weights=points[:, 1], minlength=len(steps))
        np.divide(total, count, out=row, where=count > 0)
    return steps, values


def _picture(
    arms: Sequence[ReportedArm], curves: dict[int, tuple[FloatArray, FloatArray]], title: str, name: str, unit: str
) -> Picture:
    ends, late = [], []
    with panel(210, (unit,), "step") as (figure, [ax]):
        for arm in arms:
            steps, values = curves[arm.number]
            if not len(steps):
                continue
            mean = values.mean(axis=0)  # nan, and a gap, where a seed has no value
            if len(values) > 1:
                mark(ax.plot(steps, values.T, color=color(arm.number), linewidth=0.5, alpha=0.4), arm.number)
            style: dict[str, Any] = {"color": color(arm.number), "linestyle": DASHES[arm.number % len(DASHES)]}
            mark(ax.plot(steps, mean, linewidth=1.8, **style), arm.number)
            late.append(values[:, len(steps) // 10 :])
            ends.append(f"{arm.name} ends at {values[:, -1][~np.isnan(values[:, -1])].mean():.4f}")
        values = np.concatenate([part.ravel() for part in late])
        low, high = np.nanmin(values), np.nanmax(values)
        margin = 0.06 * (high - low) or 0.01
        ax.set_ylim(low - margin, high + margin)
        return Picture(title=title, svg=svg(figure, name, f"{title} by step while fitting: {'; '.join(ends)}"))
