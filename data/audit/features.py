"""Audit: features that are constant, that are missing in one split and not in another, or that tell the label."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coldrank.data.audit.audit import LIMITS, Finding, Severity, listed, share
from coldrank.data.audit.scan import Scan

# Rows on which single features are judged: an AUC's standard error is near 0.5 / sqrt(positives).
AUC_ROWS = 50_000
# Quantile bins for numbers.
BINS = 64
# Weight of the mean rate in a category's rate, in rows.
_SMOOTHING = 10.0

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]


def check_constant(scan: Scan, used: bool) -> list[Finding]:
    """Features with one value or none, in all splits or in the trained ones, and those that are mostly one value.

    used: whether an arm reads them.
    """
    splits = tuple(dict.fromkeys(p["split"] for p in scan.parts))
    trained = "+".join(scan.fit)
    one, trained_one, mostly = [], [], []
    sample = scan.sampled(*scan.fit)
    for name in scan.features:
        if _is_constant(scan, name, *splits):
            one.append(name)
        elif _is_constant(scan, name, *scan.fit):
            trained_one.append(name)
        elif name in sample.columns and len(sample):
            top = int(sample[name].value_counts()["count"].to_numpy().max())
            mostly += [f"{name} ({share(top, len(sample))})"] if top > LIMITS.mostly * len(sample) else []
    severity: Severity = "warning" if used else "note"
    cases: list[tuple[Severity, str, list[str], str, str]] = [
        (severity, "all splits", one, "one value, or none, throughout", "it carries nothing: leave it out of the arm"),
        (
            "warning",
            trained,
            trained_one,
            "one value in training, others elsewhere",
            "the model cannot learn what they mean",
        ),
        ("note", trained, mostly, "nearly always one value (share of it)", "look whether it is a default"),
    ]
    return [
        Finding(
            severity=s,
            check="constant",
            where=w,
            what=f"{what}: {listed(names, 12)}",
            advice=a,
            figures={"columns": names},
        )
        for s, w, names, what, a in cases
        if names
    ]


def _is_constant(scan: Scan, name: str, *splits: str) -> bool:
    stats = scan.figures(name, *splits)
    return stats.low == stats.high and (stats.nulls in (0, stats.values))


def check_missing(scan: Scan) -> list[Finding]:
    """Features of which far more is missing, or at the default, in test than in training, or the reverse."""
    findings = []
    for name in scan.features:
        fit, evaluated = scan.figures(name, *scan.fit), scan.figures(name, scan.evaluate)
        if min(fit.rows, evaluated.rows) < LIMITS.ids or not fit.values or not evaluated.values:
            continue
        ours, theirs = ((s.nulls + s.defaults) / s.values for s in (fit, evaluated))
        if abs(ours - theirs) > LIMITS.missing:
            what = f"missing in {share(ours, 1)} of the values in training, in {share(theirs, 1)} in {scan.evaluate}"
            advice = "the model meets values that it hardly saw: fill them alike in both, or leave the feature out"
            figures = {"fit": ours, scan.evaluate: theirs}
            findings.append(
                Finding(severity="warning", check="missing", where=name, what=what, advice=advice, figures=figures)
            )
    return findings


def check_leaks(scan: Scan) -> list[Finding]:
    """Single features, and a history's first position and length, that predict a task better than they should."""
    sample = scan.sampled(*scan.fit)
    sample = sample.gather_every(max(1, -(-len(sample) // AUC_ROWS)))
    wanted = [n for f in scan.features for n in (f, f"{f}[0]", f"{f}.len") if n in sample.columns]
    high = {t: sample.select(scan.high(t).cast(pl.Int8)).to_series() for t in [*scan.tasks, *scan.numbers]}
    labels = {t: y.fill_null(-1).to_numpy() for t, y in high.items()}
    labels = {t: y for t, y in labels.items() if min((y == 1).sum(), (y == 0).sum()) >= LIMITS.expected}
    aucs: dict[str, dict[str, float]] = {task: {} for task in labels}
    for name in wanted:
        for codes in encodings(sample[name]):
            for task, y in labels.items():
                aucs[task][name] = max(aucs[task].get(name, 0.5), crossed_auc(codes, y))
    return [f for task, values in aucs.items() for f in _judge(task, values, len(sample), scan)]


def _judge(task: str, aucs: dict[str, float], rows: int, scan: Scan) -> list[Finding]:
    ranked = sorted(aucs, key=lambda n: -aucs[n])
    drops = [aucs[a] - aucs[b] for a, b in pairwise(ranked[:6])]
    ahead = int(np.argmax(drops)) + 1 if drops and max(drops) > LIMITS.odd_gap else 0
    # Users' own past outcomes may tell a lot; whether they hold the sample's own is judged exactly by history.py.
    past = {f"rate_{g['name']}_{t}" for g in scan.folder.manifest.get("groups", []) for t in scan.tasks}
    findings = []
    for place, name in enumerate(ranked):
        sure = aucs[name] >= LIMITS.leak_auc
        if not sure and not (place < ahead and aucs[name] >= LIMITS.odd_auc and name not in past):
            continue
        rest = ranked[ahead if place < ahead else place + 1 :]
        what = f"alone it ranks {task} with AUC {aucs[name]:.3f} (crossed halves, {rows:,} rows)"
        what += f"; the next feature, {rest[0]}, has {aucs[rest[0]]:.3f}" if rest else ""
        advice = f"is it known before the outcome? If it comes from {task}, or from after it, leave it out"
        figures: dict[str, Any] = {"task": task, "auc": aucs[name], "next": aucs[rest[0]] if rest else None}
        where = f"{'+'.join(scan.fit)}: {name}"
        severity: Severity = "error" if sure else "warning"
        findings.append(
            Finding(severity=severity, check="leak", where=where, what=what, advice=advice, figures=figures)
        )
    return findings


def encodings(values: pl.Series) -> list[Codes]:
    """A column [N] as categories, each int64 [N] from 0; missing values are a category.

    Text, integers, and few values, are categories as they are. Many numbers are also cut into quantile bins;
    many floats only.
    """
    if values.dtype.is_float():
        values = values.to_frame().select(pl.when(pl.first().is_finite()).then(pl.first())).to_series()
    exact = values.rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    if int(exact.max()) <= BINS or not values.dtype.is_numeric():
        return [exact]
    known = values.drop_nulls().to_numpy().astype(np.float64)
    edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS))
    bins = np.searchsorted(edges, values.cast(pl.Float64).fill_null(0.0).to_numpy(), side="right") + 1
    bins[values.is_null().to_numpy()] = 0
    return [bins.astype(np.int64)] if values.dtype.is_float() else [exact, bins.astype(np.int64)]


def crossed_auc(codes: Codes, labels: NDArray[np.int8]) -> float:
    """AUC of the categories' smoothed rates, each half of the rows scored by the rates of the other; the mean of both.

    codes: int64 [N]. labels: int8 [N], 1, 0 or -1 (unknown), with both classes.
    A feature that says the opposite of the label counts as much as one that says the label: the AUC is below one half
    only by chance.
    """
    known = labels >= 0
    codes, y = codes[known], labels[known] == 1
    return float(np.mean([rank_auc(rates, y[half]) for half, rates, _ in crossed_rates(codes, y)]))


def crossed_rates(codes: Codes, y: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], Floats, float]]:
    """Of each half of the rows: which they are, bool [N]; the smoothed rates of their categories in the other half,
    float64 by row; and that half's mean. codes: int64 [N]. y: bool [N]."""
    half = np.arange(len(y)) % 2 == 0
    size = int(codes.max()) + 1
    for other in (half, ~half):
        rows = np.bincount(codes[other], minlength=size)
        positives = np.bincount(codes[other], weights=y[other], minlength=size)
        mean = float(y[other].mean())
        rates = (positives + _SMOOTHING * mean) / (rows + _SMOOTHING)
        yield ~other, rates[codes[~other]], mean


def rank_auc(scores: Floats, y: NDArray[np.bool_]) -> float:
    """AUC of scores, float64 [N], for y, bool [N]; ties count half. One half where a class is missing."""
    distinct, rank = np.unique(scores, return_inverse=True)
    positives, negatives = (np.bincount(rank[rows], minlength=len(distinct)) for rows in (y, ~y))
    if not positives.sum() or not negatives.sum():
        return 0.5
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / positives.sum() / negatives.sum())
