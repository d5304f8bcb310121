"""XAUC, MAE and calibration of one run and task of numbers: on the rows themselves, on draws of users, and per day.

MAE and calibration are ratios of sums over users, which a draw weighs anew. XAUC is of pairs of rows: with x_i the
share of the pairs of row i that are in order, XAUC is the mean of x_i, and a draw's is taken as XAUC + 2 (its mean of
x_i - XAUC), the linear part of a U-statistic of pairs (Hoeffding, 1948). What that leaves out falls with the number of
users, as the error of the interval's own normal approximation does.

Legend: N rows, U users, R resamples, M metrics, D days.
"""

import numpy as np

from coldrank.analysis.compare.days import Days
from coldrank.analysis.compare.resample import Figures, Resampling
from coldrank.analysis.compare.rows import NUMBER_METRICS
from coldrank.metrics.mann_whitney import FloatArray, IntArray
from coldrank.metrics.values import VALUES, xauc_of_rows


def measure_numbers(
    labels: FloatArray, predictions: FloatArray, resampling: Resampling, days: Days | None = None
) -> Figures:
    """The figures of one run and task. labels: float64 [N], NaN where unknown. predictions: float64 [N]. days: None: no
    figures per day."""
    draws, daily = {}, {}
    for cohort, mask in resampling.cohorts.items():
        rows = np.flatnonzero(mask & ~np.isnan(labels))
        draws[cohort] = _draw(labels[rows], predictions[rows], resampling.users[rows], resampling)
        daily[cohort] = np.full((len(NUMBER_METRICS), len(days.names) if days else 0), np.nan)
        if days:
            of_day = days.day[rows]
            for day in np.unique(of_day):
                some = rows[of_day == day]
                daily[cohort][:, day] = [VALUES[m](labels[some], predictions[some]) for m in NUMBER_METRICS]
    return Figures(draws=draws, days=daily)


def _draw(labels: FloatArray, predictions: FloatArray, users: IntArray, resampling: Resampling) -> FloatArray:
    """The metrics of one cohort, float64 [M, 1 + R]."""
    ordered = xauc_of_rows(labels, predictions)
    columns = (np.ones(len(labels)), ordered, np.abs(predictions - labels), predictions, labels)
    count = resampling.draws.shape[1]
    sums = np.stack([np.bincount(users, weights=column, minlength=count) for column in columns])
    rows, in_order, error, predicted, truth = sums @ resampling.draws.T
    whole = ordered.mean() if len(ordered) else np.nan
    return np.stack([whole + 2 * (_ratio(in_order, rows) - whole), _ratio(error, rows), _ratio(predicted, truth)])


def _ratio(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b != 0)
