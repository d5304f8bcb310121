"""What the audit of prepared data finds, in words and figures, and the limits that it judges by.

The checks lie beside this file: values.py (files, ranges, duplicates, splits), drift.py (labels and ids over time),
features.py (constant, missing, suspiciously predictive), history.py (counters, histories and rates as of the time),
times.py (times and small splits) and arm.py (the settings of an arm). scan.py reads the data for all of them, once.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that a check says of the data."""

    severity: Severity
    """How grave it is.

    error: the figures of a run on this data would be wrong, or it would fail.
    warning: true of some sound data, worth a look before training.
    note: to know, nothing to do.
    """
    check: str
    """Short name of the check."""
    where: str
    """Split, file, column or period."""
    what: str
    """The finding, with its figures."""
    advice: str
    """What to do."""
    figures: dict[str, Any] = field(default_factory=dict)
    """The same figures for programs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """From where on something is worth a finding."""

    z: float = 4.5
    """Standard deviations from chance; 4.5 is 7 in a million, as a report tests hundreds of cells."""
    expected: int = 20
    """Positives, and negatives, that a cell needs before its rate is judged: below, counts are not near normal."""
    users: int = 30
    """Users that a cell needs for a standard error by users."""
    shift: float = 0.3
    """Shift of a label's log-odds; 0.3 is 50% -> 57% or 2% -> 2.7%."""
    big_shift: float = 0.7
    """Shift of the log-odds in a period that is worth a warning; 0.7 is a doubling of the odds."""
    missing: float = 0.3
    """Change of a share of unknown or missing values."""
    mostly: float = 0.99
    """Share from which a column is mostly one value."""
    ids: int = 200
    """Distinct ids, or rows, that a cell needs before drift is judged."""
    new_ids: float = 0.9
    """A share of new ids this high, after a rise by `jump`, looks like other ids rather than new users."""
    jump: float = 0.3
    """See `new_ids`."""
    unseen: float = 0.5
    """Share of the ids of the evaluated split that training never saw."""
    leak_auc: float = 0.95
    """AUC of a single feature; rankers of all features together seldom reach it."""
    odd_auc: float = 0.8
    """AUC of a single feature that is ahead of the next by `odd_gap`."""
    odd_gap: float = 0.1
    """See `odd_auc`."""
    rows: int = 10
    """Rows below which a fault of single rows is taken for chance."""
    part: float = 0.001
    """The same as a share of the rows."""
    coincidence: float = 0.2
    """Share of rows in which a history may seem to hold the event itself because the folder lacks earlier events."""
    duplicates: float = 0.001
    """Share of repeated samples that is worth a warning."""
    collide: float = 0.25
    """Share of ids that share a row with another."""
    single_bucket: float = 0.99
    """Share of values in one bucket."""


LIMITS = Limits()


def share(part: float, whole: float) -> str:
    """A share in percent, as the report writes it."""
    value = 100 * part / whole if whole else 0.0
    return f"{value:.2f}%" if 0 < value < 1 or 99 < value < 100 else f"{value:.1f}%"


def listed(names: list[str], most: int = 6) -> str:
    """The first names, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
