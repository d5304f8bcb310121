"""A comparison as data: its runs, its settings, and one row per arm, task, cohort and metric."""

from dataclasses import asdict, dataclass
from typing import Any

from coldrank.analysis.compare.controls import ArmControls
from coldrank.data.cohorts import CohortConfig

# Of tasks that give a probability.
METRICS = ("auc", "auc_fixed_avc", "ne", "gauc")
# Of tasks that give a number.
NUMBER_METRICS = ("xauc", "mae", "calibration")
# The first that is told of a task.
LEADING = ("auc", "xauc")
# Those that cold cohorts are judged by; GAUC misleads there where past labels are among the features.
JUDGING = ("auc", "auc_fixed_avc", "ne", "xauc", "mae")
LOWER_IS_BETTER = frozenset({"ne", "mae"})
# Best at 1, so that more is neither better nor worse: without p values and verdicts.
NOT_JUDGED = frozenset({"calibration"})
# In the label's own unit, not in percent.
IN_UNITS = frozenset({"mae"})
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One arm in one task, cohort and metric.

    Figures are in percent, differences and spreads in percentage points; of IN_UNITS in the label's unit. What compares
    with the baseline is None for the baseline itself, and where the metric has no value.
    """

    task: str
    """The task."""
    cohort: str
    """The cohort."""
    metric: str
    """One of METRICS or NUMBER_METRICS."""
    arm: str
    """The arm."""
    seeds: int
    """The arm's runs that did not fail."""
    n: int
    """Labelled rows."""
    users: int
    """The users that these rows belong to."""
    mean: float | None
    """The metric, mean over the seeds."""
    failed: int = 0
    """The arm's runs that failed."""
    pairs: int | None = None
    """Seeds that the arm and the baseline both have; None: their seeds were never the same, and all of them count."""
    difference: float | None = None
    """Difference to the baseline."""
    low: float | None = None
    """Lower end of its 95% interval."""
    high: float | None = None
    """Upper end of its 95% interval."""
    user_spread: float | None = None
    """Standard error of the difference that comes from users."""
    seed_spread: float | None = None
    """Standard error of the difference that comes from seeds."""
    p: float | None = None
    """Two-sided, of the same t as the interval; None of what is NOT_JUDGED."""
    p_corrected: float | None = None
    """After Holm's correction over the arm's family."""
    days: int = 0
    """Days on which the difference has a value."""
    days_p: float | None = None
    """Of the t-test over these days."""
    daily: tuple[float | None, ...] = ()
    """Difference on each day of `Comparison.days`."""
    uncorrected: str = "baseline"
    """The verdict before the correction."""
    verdict: str = "baseline"
    """After the correction: better, worse, not distinguishable, not judged, no value, or baseline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedRun:
    """A run that was asked to be compared."""

    path: str
    """Its folder."""
    arm: str
    """Its arm."""
    seed: int
    """Its seed."""
    failed: str | None = None
    """Why it has failed and was left out; None: it counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Arms against a baseline on one split."""

    split: str
    """The split."""
    baseline: str
    """The arm that the others are held against."""
    resamples: int
    """Draws of users."""
    seed: int
    """Seeds the draws."""
    cohorts: CohortConfig
    """Where the cohorts part."""
    allowed: tuple[str, ...]
    """In what the arms were let differ."""
    days: tuple[str, ...]
    """The dates, in order."""
    day_source: str
    """"data": the days of the prepared data; or "UTC"."""
    runs: tuple[ComparedRun, ...]
    """All runs, also those that failed."""
    notes: tuple[str, ...]
    """What a reader must know: what was left out, and what differs."""
    rows: tuple[Row, ...]
    """Every arm in every task, cohort and metric."""
    controls: tuple[ArmControls, ...] = ()
    """What each arm is told of who is new, and how far its gates move."""

    def to_json(self) -> dict[str, Any]:
        """What compare.json holds: the fields of this class, of `ComparedRun` and of `Row`."""
        there = {row.metric for row in self.rows}
        judging = ", ".join(metric for metric in JUDGING if metric in METRICS or metric in there)
        about = {"format": 2, "level": LEVEL, "unit": "percent, differences in percentage points"}
        about |= {"other_units": {metric: "the label's" for metric in sorted(IN_UNITS)}}
        return about | {"correction": f"Holm, per arm: {judging} together, gauc apart"} | asdict(self)
