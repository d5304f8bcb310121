"""A metric of a user's own, beside those of `by_cohort`: a config that computes a number of a cohort's rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coldrank.data.cohorts import CohortConfig, cohort_masks
from coldrank.data.errors import UserError
from coldrank.metrics.columns import int_column
from coldrank.models.component import Component


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredRows:
    """N rows of a cohort whose label for a task is known."""

    labels: NDArray[np.float64]
    """[N]."""
    predictions: NDArray[np.float64]
    """[N]; of a binary task, probabilities."""
    user_id: NDArray[np.int64]
    """[N]."""
    item_id: NDArray[np.int64]
    """[N]."""
    user_views: NDArray[np.int64]
    """The user's events before the row's own, [N]."""
    item_views: NDArray[np.int64]
    """The item's events before the row's own, [N]."""


class Metric(Component):
    """A metric's settings, and the metric. Its name in metrics.jsonl is `short_name()`."""

    what = "metric"
    package = "coldrank.metrics"

    def value(self, rows: ScoredRows) -> float:
        """The metric of one or more rows; nan where it has no value."""
        raise NotImplementedError


def metric_values(
    frame: pl.DataFrame, tasks: Sequence[str], cohorts: CohortConfig, metrics: Sequence[Metric]
) -> list[dict[str, str | float | int | None]]:
    """Rows `{"cohort", "task", "metric", "value", "n"}`; value: None where there is none.

    frame: as `evaluate_predictions` says.
    """
    if not metrics:
        return []
    names = ("user_id", "item_id", "user_views", "item_views")
    keys = {name: np.asarray(int_column(frame, name), np.int64) for name in names}
    masks = cohort_masks(keys["user_views"], keys["item_views"], cohorts)
    rows: list[dict[str, str | float | int | None]] = []
    for task in tasks:
        column = f"prob_{task}" if f"prob_{task}" in frame.columns else f"pred_{task}"
        labels = frame[f"label_{task}"].cast(pl.Float64).to_numpy()
        predictions = frame[column].cast(pl.Float64).to_numpy()
        for cohort, mask in masks.items():
            scored = _select(mask & np.isfinite(labels), labels, predictions, keys)
            for metric in metrics:
                value = _value(metric, scored, f"{task}, {cohort}") if len(scored.labels) else float("nan")
                about = {"cohort": cohort, "task": task, "metric": metric.short_name()}
                rows.append({**about, "value": value if np.isfinite(value) else None, "n": len(scored.labels)})
    return rows


def _value(metric: Metric, rows: ScoredRows, of: str) -> float:
    """Raises UserError, with the metric's name, for one that fails or gives no number."""
    try:
        return float(metric.value(rows))
    except Exception as error:
        raise UserError(f"metrics: {metric.short_name()}, of {of}: {type(error).__name__}: {error}") from error


def _select(
    use: NDArray[np.bool_],
    labels: NDArray[np.float64],
    predictions: NDArray[np.float64],
    keys: Mapping[str, NDArray[np.int64]],
) -> ScoredRows:
    return ScoredRows(
        labels=labels[use], predictions=predictions[use], **{name: values[use] for name, values in keys.items()}
    )
