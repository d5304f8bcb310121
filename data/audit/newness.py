"""Audit: how well the inputs of an arm tell new users from others, its personalization code left out.

A comparison of gates says what the code is worth where nothing else tells the same.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coldrank.data.arm import ArmSettings
from coldrank.data.audit.audit import LIMITS, Finding
from coldrank.data.audit.features import AUC_ROWS, Codes, Floats, crossed_auc, crossed_rates, encodings, rank_auc
from coldrank.data.audit.scan import Scan

# No rate is 0 or 1.
_LEAST = 1e-4


def check_newness(scan: Scan, arm: ArmSettings) -> list[Finding]:
    """The AUC with which the arm's inputs but its code tell its new users: together, and the one that does it best.

    Together: by the sum of the inputs' log-odds, each of crossed halves (naive Bayes). What a model can make of the
    inputs is at least about as much.
    """
    sample = scan.sampled(*scan.fit)
    if "user_views" not in sample.columns:
        return []
    sample = sample.gather_every(max(1, -(-len(sample) // AUC_ROWS)))
    y = (sample["user_views"] <= arm.new_user_max_views).cast(pl.Int8).to_numpy()
    if min((y == 1).sum(), (y == 0).sum()) < LIMITS.expected:
        return []
    columns = dict.fromkeys(c for f in arm.features.features if f.role != "pc" for c in f.raw_columns)
    read = [n for c in columns for n in (c, f"{c}[0]", f"{c}.len") if n in sample.columns and n != "item_id"]
    aucs: dict[str, float] = {}
    odds = np.zeros(len(y))
    for name in read:
        found = [(crossed_auc(codes, y), codes) for codes in encodings(sample[name])]
        aucs[name], best = max(found, key=lambda pair: pair[0])
        odds += _log_odds(best, y)
    together = max([rank_auc(odds, y == 1), *aucs.values()])
    first = max(aucs, key=lambda n: aucs[n])
    what = f"the inputs but for the code tell users of at most {arm.new_user_max_views} views with an AUC of"
    what += f" {together:.2f}, {first} alone with {aucs[first]:.2f}"
    advice = "what gates by views add is judged best by an arm whose inputs do not tell it"
    figures = {"auc": together, "best": aucs[first], "column": first}
    return [
        Finding(severity="note", check="newness", where=f"arm {arm.name}", what=what, advice=advice, figures=figures)
    ]


def _log_odds(codes: Codes, y: NDArray[np.int8]) -> Floats:
    """Of each row, by the rows of the other half, against the mean of these: float64 [N]."""
    odds = np.zeros(len(y))
    for half, rates, mean in crossed_rates(codes, y == 1):
        rates = np.clip(rates, _LEAST, 1 - _LEAST)
        odds[half] = np.log(rates / (1 - rates)) - np.log(mean / (1 - mean))
    return odds
