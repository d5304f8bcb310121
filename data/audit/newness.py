"""How well the inputs of an arm tell new users from others, its personalization code left out.

A comparison of gates says what the code is worth where nothing else tells the same.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coldrank.data import parquet
from coldrank.data.arm import ArmSettings
from coldrank.data.audit.audit import LIMITS, Finding
from coldrank.data.audit.features import AUC_ROWS, Codes, Floats, crossed_auc, crossed_rates, encodings, rank_auc
from coldrank.data.audit.scan import Scan
from coldrank.data.batches import DataFolder

# No rate is 0 or 1.
_LEAST = 1e-4
# What `newness_of` reads at most: rows, of so many row groups.
_ROWS, _GROUPS = 20_000, 16


@dataclass(frozen=True, slots=True)
class NewnessTold:
    """How well new users are told."""

    auc: float
    """By all inputs together."""
    best: float
    """By the one that does it best."""
    column: str
    """That one."""


def check_newness(scan: Scan, arm: ArmSettings) -> list[Finding]:
    """The AUC with which the arm's inputs but its code tell its new users: together, and the one that does it best."""
    sample = scan.sampled(*scan.fit)
    told = _told(sample.gather_every(max(1, -(-len(sample) // AUC_ROWS))), arm)
    if told is None:
        return []
    what = f"the inputs but for the code tell users of at most {arm.new_user_max_views} views with an AUC of"
    what += f" {told.auc:.2f}, {told.column} alone with {told.best:.2f}"
    advice = "what gates by views add is judged best by an arm whose inputs do not tell it"
    figures = {"auc": told.auc, "best": told.best, "column": told.column}
    return [
        Finding(severity="note", check="newness", where=f"arm {arm.name}", what=what, advice=advice, figures=figures)
    ]


def newness_of(folder: DataFolder, arm: ArmSettings) -> NewnessTold | None:
    """The same of a folder, by 20,000 of its rows that are trained on; None where too few are of new users, or of
    others."""
    return _told(_sample(folder, arm), arm)


def _sample(folder: DataFolder, arm: ArmSettings) -> pl.DataFrame:
    """Evenly spaced rows of evenly spaced row groups, lists as `scan` has them: their first value and their length."""
    wanted = {c for f in arm.features.features for c in f.raw_columns} | {"user_views"}
    groups = []
    for path in folder.read_since(arm.since).files(arm.fit):
        with parquet.opened(path) as file:
            groups += [(path, index) for index in range(file.num_row_groups)]
    if not groups:
        return pl.DataFrame()
    chosen = [
        groups[i] for i in np.unique(np.linspace(0, len(groups) - 1, min(_GROUPS, len(groups))).round().astype(int))
    ]
    frames = []
    for path, index in chosen:
        with parquet.opened(path) as file:
            columns = [c for c in file.schema_arrow.names if c in wanted]
            rows = pl.DataFrame(pl.from_arrow(file.read_row_group(index, columns=columns)))
        frames.append(rows.gather_every(max(1, len(rows) * len(chosen) // _ROWS)))
    frame = pl.concat(frames, how="vertical_relaxed")
    lists = [n for n, kind in frame.schema.items() if isinstance(kind, pl.List)]
    first = [pl.col(n).list.first().alias(f"{n}[0]") for n in lists]
    return frame.with_columns(*first, *(pl.col(n).list.len().alias(f"{n}.len") for n in lists)).drop(lists)


def _told(sample: pl.DataFrame, arm: ArmSettings) -> NewnessTold | None:
    """Together: by the sum of the inputs' log-odds, each of crossed halves (naive Bayes). What a model can make of the
    inputs is at least about as much.

    The length of a list counts where the model can read it: with positions, or of values that are not averaged; else
    whether the list is empty alone.
    """
    if "user_views" not in sample.columns:
        return None
    y = (sample["user_views"] <= arm.new_user_max_views).cast(pl.Int8).to_numpy()
    if min((y == 1).sum(), (y == 0).sum()) < LIMITS.expected:
        return None
    columns = dict.fromkeys(c for f in arm.features.features if f.role != "pc" for c in f.raw_columns)
    read = [n for c in columns for n in (c, f"{c}[0]", f"{c}.len") if n in sample.columns and n != "item_id"]
    aucs: dict[str, float] = {}
    odds = np.zeros(len(y))
    for name in read:
        values = sample[name]
        if name.endswith(".len") and not arm.reads_lengths:
            values = values.clip(0, 1)
        found = [(crossed_auc(codes, y), codes) for codes in encodings(values)]
        aucs[name], best = max(found, key=lambda pair: pair[0])
        odds += _log_odds(best, y)
    first = max(aucs, key=lambda n: aucs[n])
    return NewnessTold(max([rank_auc(odds, y == 1), *aucs.values()]), aucs[first], first)


def _log_odds(codes: Codes, y: NDArray[np.int8]) -> Floats:
    """Of each row, by the rows of the other half, against the mean of these: float64 [N]."""
    odds = np.zeros(len(y))
    for half, rates, mean in crossed_rates(codes, y == 1):
        rates = np.clip(rates, _LEAST, 1 - _LEAST)
        odds[half] = np.log(rates / (1 - rates)) - np.log(mean / (1 - mean))
    return odds
