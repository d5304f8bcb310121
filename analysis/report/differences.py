"""The forest plot, the verdict in a sentence and the config difference of each arm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from coldrank.analysis.compare.rows import LEADING, Row
from coldrank.analysis.report.words import listed, number, plain


@dataclass(frozen=True, slots=True)
class Bar:
    """Where a row's difference and interval lie in the picture, in percent of its width."""

    row: Row
    """The row."""
    point: float | None
    """The difference; None: it has no value."""
    low: float
    """Lower end of the interval, as far as it is shown."""
    high: float
    """Upper end of the interval, as far as it is shown."""
    cut_low: bool
    """Whether the interval goes on below."""
    cut_high: bool
    """Whether the interval goes on above."""


@dataclass(frozen=True, slots=True)
class Forest:
    """The forest plot of one task and metric."""

    task: str
    """The task."""
    metric: str
    """The metric."""
    ticks: list[tuple[float, str]]
    """Place on the axis, in percent of the width, and label."""
    cohorts: list[tuple[str, Row, list[Bar]]]
    """Per cohort the baseline's row, and a bar for each other arm."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One arm against the baseline by AUC, of numbers by XAUC."""

    arm: str
    """The arm."""
    better: int
    """Cells in which it is better."""
    worse: int
    """Cells in which it is worse."""
    open: int
    """Cells in which no difference can be told, or that have no value."""
    sentence: str
    """The same in words."""


def forest(rows: Sequence[Row], task: str, metric: str) -> Forest:
    """The differences of a task. The axis holds every point, and every interval but those much wider than most."""
    of_task = [row for row in rows if (row.task, row.metric) == (task, metric)]
    known = [row for row in of_task if row.difference is not None and row.low is not None and row.high is not None]
    points = np.array([abs(row.difference or 0.0) for row in known] or [1.0])
    reach = np.array([max(-(row.low or 0.0), row.high or 0.0) for row in known] or [1.0])
    limit = 1.05 * max(points.max(), min(reach.max(), 2.5 * np.median(reach))) or 1.0
    inside = [tick for tick in MaxNLocator(4, symmetric=True).tick_values(-limit, limit) if abs(tick) <= limit]
    decimals = max(0, int(np.ceil(-np.log10(np.diff(inside).min()) - 1e-9))) if len(inside) > 1 else 2
    ticks = [(_place(tick, limit), number(tick, decimals) if tick else "0") for tick in inside]
    cohorts = []
    for cohort in dict.fromkeys(row.cohort for row in of_task):
        base = next(row for row in of_task if row.cohort == cohort and row.verdict == "baseline")
        bars = [_bar(row, limit) for row in of_task if row.cohort == cohort and row is not base]
        cohorts.append((cohort, base, bars))
    return Forest(task, metric, ticks, cohorts)


def _place(value: float, limit: float) -> float:
    return round(50 + 46 * value / limit, 2)


def _bar(row: Row, limit: float) -> Bar:
    if row.difference is None or row.low is None or row.high is None:
        return Bar(row, None, 0, 0, False, False)
    low, high = max(row.low, -limit), min(row.high, limit)
    return Bar(
        row, _place(row.difference, limit), _place(low, limit), _place(high, limit), row.low < -limit, row.high > limit
    )


def verdict(rows: Sequence[Row], arm: str, baseline: str) -> Verdict:
    """By AUC, of numbers by XAUC: where the arm is better and worse than the baseline, and in how many cells neither
    can be told."""
    cells = [row for row in rows if row.arm == arm and row.metric in LEADING]
    better, worse = ([row for row in cells if row.verdict == word] for word in ("better", "worse"))
    rest = len(cells) - len(better) - len(worse)
    if not better and not worse:
        sentence = f"No difference from {baseline} can be told in any of the {len(cells)} cells."
    else:
        parts = [f"{word} for {_where(rows, cells)}" for word, rows in (("better", better), ("worse", worse)) if rows]
        nowhere = "" if worse else ", worse nowhere"
        open_ = f"; no difference can be told in {rest} of {len(cells)} cells" if rest else ""
        sentence = f"{' and '.join(parts)}{nowhere}{open_}."
        sentence = sentence[0].upper() + sentence[1:]
    return Verdict(arm, len(better), len(worse), rest, sentence)


def _where(rows: Sequence[Row], cells: Sequence[Row]) -> str:
    """The tasks and cohorts of some rows. cells: all rows of the arm."""
    cohorts = len({row.cohort for row in cells})
    parts = []
    for task in dict.fromkeys(row.task for row in rows):
        names = [plain(row.cohort) for row in rows if row.task == task]
        parts.append(f"{plain(task)} ({'every cohort' if len(names) == cohorts else listed(names)})")
    return listed(parts)


def config_changes(config: Mapping[str, Any], base: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Field, baseline's value and arm's value, wherever two config.json differ but in name and seed.

    Lists of named entries, as features and tables, are compared by name.
    """
    ours, theirs = _flat(config), _flat(base)
    keys = [key for key in dict.fromkeys([*theirs, *ours]) if ours.get(key) != theirs.get(key)]
    return [(k, str(theirs.get(k, "–")), str(ours.get(k, "–"))) for k in keys if k not in ("name", "seed")]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, list) and value and all(isinstance(v, dict) and "name" in v for v in value):
            entries = {entry["name"]: entry for entry in value}
            flat |= {f"{prefix}{key}.{name}": _brief(entry) for name, entry in entries.items()}
        elif isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _brief(entry: Mapping[str, Any]) -> str:
    """The fields of a feature or table that say something."""
    return ", ".join(
        f"{key} {value}" for key, value in entry.items() if key != "name" and value not in ("", [], 0, False)
    )
