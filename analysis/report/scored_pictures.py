"""Pictures of `scored`: calibration curves, and AUC by views with the differences to the baseline below."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from coldrank.analysis.compare.compare import PERCENT
from coldrank.analysis.compare.interval import Interval
from coldrank.analysis.report.arms import ReportedArm
from coldrank.analysis.report.picture import MARKERS, MUTED, color, mark, panel, svg
from coldrank.analysis.report.scored import ByViews, Calibration, wilson
from coldrank.analysis.report.words import Picture, number, plain, signed, spread
from coldrank.metrics.mann_whitney import FloatArray

RARE = 0.05  # square-root axes keep the lowest bins of a rarer label apart
MAX_LABELS = 9


def calibration_picture(
    arms: Sequence[ReportedArm], curves: Sequence[Calibration], task: str, cohort: str
) -> Picture | None:
    """Share of positives against mean prediction per bin; on the diagonal it is right. None: there are too few rows."""
    first = curves[0]
    if not len(first.predicted):
        return None
    bins, rate = len(first.predicted), first.positives / first.rows
    ratios, top = [], 0.0
    with panel(250, ("share of positives",), "mean prediction") as (figure, [ax]):
        for arm, curve in zip(arms, curves, strict=True):
            low, high = wilson(curve.observed, curve.rows / bins)
            shape: dict[str, Any] = {"marker": MARKERS[arm.number % len(MARKERS)], "markersize": 3.5, "linewidth": 1.2}
            mark(ax.plot(curve.predicted, curve.observed, color=color(arm.number), **shape), arm.number)
            mark(ax.vlines(curve.predicted, low, high, color=color(arm.number), linewidth=0.7, alpha=0.6), arm.number)
            top = max(top, curve.predicted[-1], float(high[-1]))
            ratios.append(f"{arm.name} {curve.predicted.mean() / rate:.2f}")
        ax.plot((0, top), (0, top), color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        ticks = np.asarray(MaxNLocator(4).tick_values(0, top))
        if rate < RARE:
            root = (lambda value: np.sqrt(np.maximum(value, 0)), np.square)
            ax.set_xscale("function", functions=root)
            ax.set_yscale("function", functions=root)
            ticks = np.array([0, ticks[1] / 4, *ticks[1:]])
        ax.set(xticks=ticks[ticks <= top], yticks=ticks[ticks <= top])
        ax.set(xlim=(0, top * 1.04), ylim=(0, top * 1.04))
        title = plain(task)
        text = f"Calibration of {title}, {plain(cohort)}; mean prediction over share of positives: {', '.join(ratios)}"
        note = f"{first.rows:,} rows, {first.positives:,} positive, {bins} bins"
        return Picture(title, svg(figure, f"cal-{task}-{cohort}", text), note)


def views_picture(arms: Sequence[ReportedArm], by_views: ByViews, task: str, side: str) -> Picture | None:
    """AUC by views of the `side`, user or item, above; differences to the baseline below; both with 95% intervals."""
    if not by_views.buckets:
        return None
    places = np.arange(len(by_views.buckets), dtype=np.float64)
    labels = ("AUC, %", f"difference to {arms[0].name}, points")
    with panel(280, labels, f"views of the {side} before the event, from") as (figure, [above, below]):
        for arm, levels, differences in zip(arms, by_views.levels, by_views.differences, strict=True):
            dodge = (arm.number - (len(arms) - 1) / 2) * min(0.75 / len(arms), 0.14)
            _draw(above, arm, places + dodge, levels, joined=True)
            if arm.number:
                _draw(below, arm, places + dodge, differences, joined=False)
        for ax, shown in ((above, by_views.levels), (below, by_views.differences[1:])):
            intervals = [interval for arm_intervals in shown for interval in arm_intervals if interval is not None]
            ax.set_ylim(_limits(intervals, about_zero=ax is below))
        below.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
        side_room = 0.6 + max(0.0, (5 - len(places)) / 2)
        below.set_xlim(-side_room, len(places) - 1 + side_room)
        every = -(-len(places) // MAX_LABELS)
        below.set_xticks(places[::every], [_begin(bucket) for bucket in by_views.buckets[::every]])
        text = f"AUC of {plain(task)} by views of the {side}. {_in_words(arms, by_views)}"
        note = f"{sum(by_views.rows):,} rows, {spread(by_views.rows)} a point"
        return Picture(plain(task), svg(figure, f"{side}-{task}", text), note)


def _draw(
    ax: Axes, arm: ReportedArm, places: FloatArray, intervals: Sequence[Interval | None], *, joined: bool
) -> None:
    shown = [(x, i) for x, i in zip(places, intervals, strict=True) if i is not None]
    if not shown:
        return
    x = [x for x, _ in shown]
    middle, low, high = (PERCENT * np.array([getattr(i, f) for _, i in shown]) for f in ("difference", "low", "high"))
    style: dict[str, Any] = {
        "color": color(arm.number),
        "marker": MARKERS[arm.number % len(MARKERS)],
        "markersize": 3.5,
    }
    mark(ax.plot(x, middle, linewidth=1.2, linestyle="-" if joined else "none", **style), arm.number)
    mark(ax.vlines(x, low, high, color=color(arm.number), linewidth=0.9, alpha=0.7), arm.number)


def _limits(intervals: Sequence[Interval], *, about_zero: bool) -> tuple[float, float] | None:
    """Bounds in percent that hold every point, and every interval but for the ends of those much wider than most."""
    if not intervals:
        return None
    points = PERCENT * np.array([0.0] * about_zero + [i.difference for i in intervals])
    halves = PERCENT * np.array([i.high - i.difference for i in intervals])
    margin = min(halves.max(), 3 * float(np.median(halves)))
    low, high = points.min() - margin, points.max() + margin
    if about_zero:
        return -max(-low, high), max(-low, high)
    return max(low, 0.0), min(high, PERCENT)


def _begin(bucket: int) -> str:
    """The least views of a bucket: 0, 1, 2, 4, ... 512, 1k, 2k."""
    views = 0 if bucket == 0 else 2 ** (bucket - 1)
    return f"{views // 1024}k" if views >= 1024 else str(views)


def _in_words(arms: Sequence[ReportedArm], by_views: ByViews) -> str:
    """Where an arm's difference excludes zero, for who cannot see the picture."""
    parts = []
    for arm, differences in zip(arms[1:], by_views.differences[1:], strict=True):
        clear = [
            f"{signed(PERCENT * i.difference)} points from {_begin(bucket)} views"
            for bucket, i in zip(by_views.buckets, differences, strict=True)
            if i is not None and not i.low <= 0 <= i.high
        ]
        parts.append(f"{arm.name}: {', '.join(clear) if clear else 'every interval of the difference holds zero'}.")
    first = next((i for i in by_views.levels[0] if i is not None), None)
    begin = f"{arms[0].name} begins at {number(PERCENT * first.difference)} percent. " if first else ""
    return begin + " ".join(parts)
