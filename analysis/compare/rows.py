"""A comparison as data: its runs, its settings, and one row per arm, task, cohort and metric."""

from dataclasses import asdict, dataclass
from typing import Any

from coldrank.data.cohorts import CohortConfig

METRICS = ("auc", "auc_fixed_avc", "ne", "gauc")
# Those that cold cohorts are judged by; GAUC misleads there where past labels are among the features.
JUDGING = ("auc", "auc_fixed_avc", "ne")
LOWER_IS_BETTER = frozenset({"ne"})
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One arm in one task, cohort and metric; figures in percent, differences and spreads in percentage points.

    `mean` is over the arm's `seeds` runs that did not fail; `failed` counts the others. `difference`, `low` and `high` (95%)
    are to the baseline, None for the baseline itself and where the metric has no value, over `pairs` seeds that both arms
    have (None: their seeds were never the same, and all of them count). `user_spread` and `seed_spread` are the standard errors
    of the difference that come from users and from seeds. `p` is two-sided, of the same t as the interval; `p_corrected` is
    Holm's over the arm's family. `daily` holds the difference per day of `Comparison.days`, `days` counts those that have a
    value and `days_p` is of the t-test over them.
    n counts labelled rows, `users` the users that they belong to. `verdict` holds after the correction, `uncorrected`
    before it; both are better, worse, not distinguishable, no value, or baseline.
    """

    task: str
    cohort: str
    metric: str
    arm: str
    seeds: int
    n: int
    users: int
    mean: float | None
    failed: int = 0
    pairs: int | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    user_spread: float | None = None
    seed_spread: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    days: int = 0
    days_p: float | None = None
    daily: tuple[float | None, ...] = ()
    uncorrected: str = "baseline"
    verdict: str = "baseline"


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedRun:
    """A run folder; `failed` says by what rule it was left out (None: it counts)."""

    path: str
    arm: str
    seed: int
    failed: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Arms against the arm `baseline` on one split.

    `days` are dates, in order, by `day_source`: "data" (the days of the prepared data) or "UTC". `allowed` are the ways in which
    the arms were let differ, `notes` the lines a reader must know: what was left out, and what differs.
    """

    split: str
    baseline: str
    resamples: int
    seed: int
    cohorts: CohortConfig
    allowed: tuple[str, ...]
    days: tuple[str, ...]
    day_source: str
    runs: tuple[ComparedRun, ...]
    notes: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """What compare.json holds: the fields of this class, of `ComparedRun` and of `Row`."""
        about = {"format": 2, "level": LEVEL, "unit": "percent, differences in percentage points"}
        return about | {"correction": f"Holm, per arm: {', '.join(JUDGING)} together, gauc apart"} | asdict(self)
