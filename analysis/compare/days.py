"""The paired t-test over days of POSO's section 5.2: the arms' difference on each day of the test is one sample.

The days are those of the prepared data where the runs name it and it is still there, else those of UTC.
Legend: N rows, M metrics, D days, G groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from coldrank.analysis.compare.interval import two_sided_p
from coldrank.analysis.compare.rows import METRICS
from coldrank.analysis.compare.runs import KEYS, ScoredRun, SharedRows
from coldrank.data import parquet
from coldrank.data.location import location
from coldrank.data.read_manifest import read_manifest
from coldrank.data.split import NEXT
from coldrank.metrics.by_cohort import avc_groups, normalised, row_logloss
from coldrank.metrics.mann_whitney import FloatArray, IntArray, SortedRows


@dataclass(frozen=True, kw_only=True, slots=True)
class Days:
    """The day of each row."""

    names: tuple[str, ...]
    """The D dates, in order."""
    source: str
    """Where the days come from: "data" or "UTC"."""
    day: IntArray
    """Each row's index into `names`, int64 [N]."""
    by_avc: tuple[IntArray, IntArray]
    """The days split by AVC group: each row's code, int64 [N], and each code's day, int64 [G]."""
    by_user: tuple[IntArray, IntArray]
    """The same split by user."""

    def measure(self, rows: SortedRows) -> FloatArray:
        """The metrics per day, float64 [M, D], of rows sorted by score; nan where a day has no value."""
        result = np.full((len(METRICS), len(self.names)), np.nan)
        day = self.day[rows.rows]
        pairs = rows.grouped(self.day).pairs()
        result[0, pairs.groups] = pairs.auc()
        for metric, (code, day_of_code), weighted in ((1, self.by_avc, False), (3, self.by_user, True)):
            pairs = rows.grouped(code).pairs()
            size = np.bincount(code[rows.rows], minlength=len(day_of_code))[pairs.groups] if weighted else 1
            weights = np.broadcast_to(np.asarray(size, dtype=np.float64), len(pairs.groups))
            result[metric] = self._mean(pairs.auc(), weights, day_of_code[pairs.groups])
        count = np.bincount(day, minlength=len(self.names))
        positives = np.bincount(day, weights=rows.labels, minlength=len(self.names))
        loss = np.bincount(day, weights=row_logloss(rows.labels, rows.scores), minlength=len(self.names))
        some = count > 0
        result[2, some] = normalised(loss[some] / count[some], positives[some] / count[some])
        return result

    def _mean(self, values: FloatArray, weights: FloatArray, day: IntArray) -> FloatArray:
        """The weighted mean per day, float64 [D], of the values [G]."""
        total = np.bincount(day, weights=weights, minlength=len(self.names))
        summed = np.bincount(day, weights=weights * values, minlength=len(self.names))
        return np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)


def t_test(differences: FloatArray) -> tuple[int, float | None]:
    """Number of days with a value, and the two-sided p of a mean of 0; None with fewer than two days.

    differences: per day, float64 [D]; nan where a day has no value.
    """
    known = differences[np.isfinite(differences)]
    if len(known) < 2:
        return len(known), None
    return len(known), two_sided_p(float(known.mean()), float(known.std(ddof=1)) / len(known) ** 0.5, len(known) - 1)


def find_days(runs: Sequence[ScoredRun], rows: SharedRows) -> Days:
    """The day of every row."""
    known = next((run.facts["data_path"] for run in runs if "data_path" in run.facts), None)
    dates = None if known is None else _data_days(location(known), runs[0].split, rows)
    source = "data"
    if dates is None:
        source, dates = "UTC", rows.times.astype("datetime64[ms]").astype("datetime64[D]")
    names, day = np.unique(dates, return_inverse=True)
    return Days(
        names=tuple(str(name) for name in names),
        source=source,
        day=day,
        by_avc=_split(day, avc_groups(rows.user_views)),
        by_user=_split(day, np.unique(rows.users, return_inverse=True)[1]),
    )


def _split(day: IntArray, code: IntArray) -> tuple[IntArray, IntArray]:
    base = int(code.max()) + 1
    both, group = np.unique(day.astype(np.int64) * base + code, return_inverse=True)
    return group, both // base


def _data_days(folder: Path, split: str, rows: SharedRows) -> np.ndarray[Any, Any] | None:
    """The period of each row's sample, where the data's periods are days and hold every row; else None."""
    if not (folder / "manifest.json").is_file():
        return None
    parts = [part for part in read_manifest(folder)["partitions"] if split in (NEXT, part["split"])]
    if not parts or any(len(part["period"]) != len("2022-05-04") for part in parts):
        return None
    frames = [parquet.read(folder / part["path"], KEYS).with_columns(day=pl.lit(part["period"])) for part in parts]
    keys = pl.DataFrame(dict(zip(KEYS, (rows.users, rows.items, rows.times), strict=True)))
    dated = keys.join(pl.concat(frames).unique(KEYS, keep="first"), on=KEYS, how="left", maintain_order="left")
    return None if dated["day"].null_count() else dated["day"].to_numpy().astype("datetime64[D]")
