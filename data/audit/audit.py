"""What the audit of prepared data finds, in words and figures, and the limits that it judges by.

The checks are in audit_values (files, ranges, duplicates, splits), audit_drift (labels and ids over time), audit_features
(constant, missing, suspiciously predictive), audit_history (counters, histories and rates as of the time) and audit_arm (the
settings of an arm); audit_scan reads the data for all of them, once.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing found.

    error: the figures of a run on this data would be wrong, or it would fail. warning: true of some sound data, worth a look
    before training. note: to know, nothing to do.
    check: short name of the check. where: split, file, column or period. what: the finding, with its figures. advice: what to do.
    figures: the same numbers for programs.
    """

    severity: Severity
    check: str
    where: str
    what: str
    advice: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """From where on something is worth a finding.

    z: deviations from chance; 4.5 is 7 in a million, as a report tests hundreds of cells.
    expected: positives (and negatives) that a cell needs before its rate is judged: below, counts are not near normal.
    users: fewer users in a cell give no standard error by users.
    shift, big_shift: of a label's log-odds; 0.3 is 50% -> 57% or 2% -> 2.7%, 0.7 a doubling of the odds.
    missing: change of a share of unknown or missing values. mostly: share from which a column is mostly one value.
    ids: fewer distinct ids in a cell say nothing about drift. new_ids, jump: a share of new ids this high, after a rise of this
        much, looks like other ids rather than new users. unseen: share of ids of the evaluated split that training never saw.
    leak_auc: of a single feature; rankers of all features together seldom reach it. odd_auc, odd_gap: a feature this good that is
        this far ahead of the next.
    rows: rows below which a fault of single rows is taken for chance; part: the same as a share of the rows.
    coincidence: share of rows up to which a history may seem to hold the event itself because the folder lacks earlier events.
    duplicates: share of repeated samples that is worth a warning.
    collide: share of ids that share a row with another. single_bucket: share of values in one bucket.
    """

    z: float = 4.5
    expected: int = 20
    users: int = 30
    shift: float = 0.3
    big_shift: float = 0.7
    missing: float = 0.3
    mostly: float = 0.99
    ids: int = 200
    new_ids: float = 0.9
    jump: float = 0.3
    unseen: float = 0.5
    leak_auc: float = 0.95
    odd_auc: float = 0.8
    odd_gap: float = 0.1
    rows: int = 10
    part: float = 0.001
    coincidence: float = 0.2
    duplicates: float = 0.001
    collide: float = 0.25
    single_bucket: float = 0.99


LIMITS = Limits()


def share(part: float, whole: float) -> str:
    """A share in percent, as the report writes it."""
    value = 100 * part / whole if whole else 0.0
    return f"{value:.2f}%" if 0 < value < 1 or 99 < value < 100 else f"{value:.1f}%"


def listed(names: list[str], most: int = 6) -> str:
    """The first names, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
