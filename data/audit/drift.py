"""Audit: rates of labels, unknown labels, and new ids, between splits and from period to period."""

from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import polars as pl

from coldrank.data.audit.audit import LIMITS, Finding, Severity, listed, share
from coldrank.data.audit.scan import Scan
from coldrank.data.audit.values import split_kind

_NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True)
class Rate:
    """A label's rate in a cell: a split or a period."""

    rows: int
    """All rows."""
    known: int
    """Rows with the label."""
    positives: int
    """Rows whose label is 1; of numbers and levels, above the mean of training."""
    users: int
    """Users with a known label."""
    error: float
    """Standard error of the rate, with the users as the independent units."""

    @property
    def value(self) -> float:
        """The rate; nan without a known label."""
        return self.positives / self.known if self.known else float("nan")

    @property
    def log_odds(self) -> float:
        """Log-odds, half an event added to either side."""
        return log((self.positives + 0.5) / (self.known - self.positives + 0.5))

    def __str__(self) -> str:
        low, high = (self.value + s * _NORMAL_95 * self.error for s in (-1, 1))
        return f"{100 * self.value:.2f}% [{100 * max(low, 0):.2f}, {100 * min(high, 1):.2f}]"


def label_rates(scan: Scan, task: str, cell: str) -> dict[str, Rate]:
    """The rate of a label per split or per period (`cell`: split, period)."""
    label = pl.col(f"label_{task}")
    by_part = scan.keys.group_by("part", "user_id").agg(rows=pl.len(), n=label.count(), pos=scan.high(task).sum())
    sums = by_part.group_by(scan.cell(cell).alias("cell"), "user_id").agg(pl.col("rows", "n", "pos").sum())
    rates = {}
    for name, by_user in sums.group_by("cell", maintain_order=True):
        known, positives = int(by_user["n"].sum()), int(by_user["pos"].sum())
        users = int((by_user["n"] > 0).sum())
        error = float("nan")
        if users > 1:
            rest = (by_user["pos"] - by_user["n"] * (positives / known)) ** 2
            error = sqrt(float(rest.sum()) * users / (users - 1)) / known
        rates[str(name[0])] = Rate(int(by_user["rows"].sum()), known, positives, users, error)
    return dict(sorted(rates.items()))


def check_labels(scan: Scan) -> list[Finding]:
    """Labels that are unknown or all alike, and rates that shift between splits or in a period."""
    findings: list[Finding] = []
    for task in [*scan.tasks, *scan.numbers]:
        splits, periods = label_rates(scan, task, "split"), label_rates(scan, task, "period")
        fit = _together([splits[s] for s in scan.fit if s in splits])
        evaluated = splits.get(scan.evaluate)
        findings += _unknown(task, scan, fit, evaluated, periods)
        if not fit.known:
            continue
        if evaluated and (shift := _shift(evaluated, fit)) is not None:
            what = f"{_rate_of(task, scan)} {evaluated}; in training {fit}: log-odds {shift:+.2f}"
            figures = {"rate": evaluated.value, "rate_fit": fit.value, "shift": shift, "known": evaluated.known}
            findings.append(_drift("warning", f"{scan.evaluate}: label_{task}", what, figures))
        findings += _period_shifts(task, periods, _rate_of(task, scan))
    return findings


def _rate_of(task: str, scan: Scan) -> str:
    """What a task's rate is, in words."""
    return "rate" if task in scan.tasks else f"share above {scan.bound(task):.4g}, the mean of training,"


def _together(rates: list[Rate]) -> Rate:
    """Several cells as one; the errors as of independent cells."""
    known = sum(r.known for r in rates)
    variance = sum((r.known * r.error) ** 2 for r in rates if r.users > 1)
    return Rate(
        rows=sum(r.rows for r in rates),
        known=known,
        positives=sum(r.positives for r in rates),
        users=sum(r.users for r in rates),
        error=sqrt(variance) / known if known else float("nan"),
    )


def _shift(cell: Rate, other: Rate) -> float | None:
    """Difference of the log-odds, where it is both beyond chance and material."""
    if min(cell.users, other.users) < LIMITS.users:
        return None
    rate = other.value
    if min(rate, 1 - rate) * cell.known < LIMITS.expected:
        return None
    shift = cell.log_odds - other.log_odds
    # A cell without positives has no spread of its own: it is given that of the rate it is held against.
    error = sqrt(max(cell.error**2, rate * (1 - rate) / cell.known) + other.error**2)
    return shift if abs(shift) > LIMITS.shift and abs(cell.value - rate) > LIMITS.z * error else None


def _period_shifts(task: str, periods: dict[str, Rate], rate_of: str) -> list[Finding]:
    """Periods against all others together."""
    shifts: dict[str, float] = {}
    for name, rate in periods.items():
        rest = _together([r for n, r in periods.items() if n != name])
        if rest.known and rate.known and (shift := _shift(rate, rest)) is not None:
            shifts[name] = shift
    if not shifts:
        return []
    worst = max(shifts, key=lambda n: abs(shifts[n]))
    severity: Severity = "warning" if abs(shifts[worst]) > LIMITS.big_shift else "note"
    what = (
        f"the {rate_of} is another than in the other periods in {len(shifts)} of {len(periods)}:"
        f" {listed(list(shifts))}; most in {worst}: {periods[worst]}, log-odds {shifts[worst]:+.2f}"
    )
    return [_drift(severity, f"period {worst}: label_{task}", what, {"shifts": shifts})]


def _drift(severity: Severity, where: str, what: str, figures: dict[str, Any]) -> Finding:
    advice = "find out what changed: the definition of the label, how it is logged, or who was shown what"
    return Finding(severity=severity, check="label drift", where=where, what=what, advice=advice, figures=figures)


def _unknown(task: str, scan: Scan, fit: Rate, evaluated: Rate | None, periods: dict[str, Rate]) -> list[Finding]:
    """Labels that are missing, in all or in some periods, and labels of one value only."""
    findings: list[Finding] = []

    def add(severity: Severity, where: str, what: str, advice: str, **figures: Any) -> None:
        findings.append(
            Finding(severity=severity, check="labels", where=where, what=what, advice=advice, figures=figures)
        )

    column, trained = f"label_{task}", "+".join(scan.fit)
    expected = min(fit.value, 1 - fit.value) * evaluated.known if evaluated and fit.known else 0
    if not fit.known:
        add("error", f"{trained}: {column}", "no sample has this label", "take the task out, or find its column")
    elif fit.positives in (0, fit.known):
        value = int(fit.positives > 0) if task in scan.tasks else f"{scan.bound(task):.4g}"
        what = f"all {fit.known:,} known labels are {value}"
        add("error", f"{trained}: {column}", what, "take the task out, or mend the label", known=fit.known)
    elif evaluated and not evaluated.known:
        add("warning", f"{scan.evaluate}: {column}", "no sample has this label", "no metric of it can be computed")
    elif task in scan.tasks and evaluated and evaluated.positives in (0, evaluated.known):
        severity: Severity = "warning" if expected > LIMITS.expected else "note"
        what = f"all {evaluated.known:,} known labels are {int(evaluated.positives > 0)}"
        what += f"; {expected:.0f} of the others expected"
        add(severity, f"{scan.evaluate}: {column}", what, "its AUC will be missing", known=evaluated.known)
    gaps = {n: 1 - r.known / r.rows for n, r in periods.items() if r.rows >= LIMITS.ids}
    if fit.known and gaps and max(gaps.values()) - min(gaps.values()) > LIMITS.missing:
        whole = [n for n, gap in gaps.items() if gap > min(gaps.values()) + LIMITS.missing]
        what = f"unknown in {share(fit.rows - fit.known, fit.rows)} of {trained};"
        what += f" far more than elsewhere in {len(whole)} of {len(periods)} periods: {listed(whole)}"
        advice = "train on the periods that have it, or know that the others do not teach this task"
        add("warning", f"{trained}: {column}", what, advice, unknown=gaps)
    return findings


def check_ids(scan: Scan) -> list[Finding]:
    """Users and items of test that training never saw, and periods in which nearly all ids are suddenly new."""
    findings: list[Finding] = []
    # Of anonymous events alone there are no users.
    nobody = scan.folder.manifest.get("counts", {}).get("users") == 0
    for column, kind in (("user_id", "users"), ("item_id", "items"))[nobody:]:
        findings += _unseen(scan, column, kind)
        findings += _sudden(scan, column, kind)
    return findings


def _unseen(scan: Scan, column: str, kind: str) -> list[Finding]:
    ids = scan.keys.group_by("part", column).len("rows").with_columns(split=scan.cell("split"))
    trained = ids.filter(pl.col("split").is_in(list(scan.fit)))
    tested = ids.filter(pl.col("split") == scan.evaluate).group_by(column).agg(pl.col("rows").sum())
    unseen = tested.join(trained, on=column, how="anti")
    new, distinct, new_rows, rows = len(unseen), len(tested), int(unseen["rows"].sum()), int(tested["rows"].sum())
    if not new:
        return []
    by_design = split_kind(scan) == "users" and column == "user_id"
    many = new > LIMITS.unseen * distinct and distinct >= LIMITS.ids and not by_design
    none_left = many and new == distinct and kind == "items"
    severity: Severity = "error" if none_left else "warning" if many else "note"
    what = f"{new:,} of {distinct:,} {kind} ({share(new, distinct)}),"
    what += f" {share(new_rows, rows)} of the samples, are not in training"
    advice = "are the ids of both splits made in the same way?" if many else "their ids carry nothing learned"
    figures = {"new": new, "distinct": distinct, "new_rows": new_rows, "rows": rows}
    where = f"{scan.evaluate}: {column}"
    return [Finding(severity=severity, check="id drift", where=where, what=what, advice=advice, figures=figures)]


def _sudden(scan: Scan, column: str, kind: str) -> list[Finding]:
    pairs = scan.keys.group_by("part", column).len().select(scan.cell("period").alias("period"), column).unique()
    pairs = pairs.with_columns(new=pl.col("period") == pl.col("period").min().over(column))
    shares = pairs.group_by("period").agg(distinct=pl.len(), new=pl.col("new").mean()).sort("period")
    before, distinct = shares["new"].shift(1), shares["distinct"]
    enough = (distinct >= LIMITS.ids) & (distinct.shift(1) >= LIMITS.ids)
    jumps = shares.with_columns(before=before).filter(
        enough & (pl.col("new") - pl.col("before") > LIMITS.jump) & (pl.col("new") > LIMITS.new_ids)
    )
    findings = []
    for row in jumps.iter_rows(named=True):
        what = f"{share(row['new'], 1)} of {row['distinct']:,} {kind} are new,"
        what += f" {share(row['before'], 1)} in the period before"
        where, advice = f"period {row['period']}: {column}", "were the ids coded anew?"
        findings.append(
            Finding(severity="warning", check="id drift", where=where, what=what, advice=advice, figures=dict(row))
        )
    return findings
