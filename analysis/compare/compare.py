"""Arms against a baseline, per task, cohort and metric: paired intervals, verdicts that hold together, days.

How the intervals are made: interval.py. Which runs may be compared, and which have failed: checks.py.

The verdicts "better" and "worse" hold after Holm's correction at 5%. All tasks, cohorts and the metrics auc,
auc_fixed_avc and ne (of numbers xauc and mae) of an arm are one family; gauc, which cold cohorts are not judged by, is
another. Calibration, best at 1, has an interval and no verdict. So an arm that
equals the baseline gets any mark at all with at most 5% (twice that with gauc). A mark for new users owes nothing to
easier wins elsewhere, as it would under Benjamini and Hochberg's procedure.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from coldrank.analysis.compare.checks import failure, require_same_conditions
from coldrank.analysis.compare.controls import ArmControls, unmoved_arms
from coldrank.analysis.compare.days import Days, find_days, t_test
from coldrank.analysis.compare.interval import Interval, contrast, effective_users, equal_users, holm
from coldrank.analysis.compare.numbers import measure_numbers
from coldrank.analysis.compare.resample import Figures, Resampling, measure, resample_users
from coldrank.analysis.compare.rows import (
    IN_UNITS,
    JUDGING,
    LEVEL,
    LOWER_IS_BETTER,
    METRICS,
    NOT_JUDGED,
    NUMBER_METRICS,
    ComparedRun,
    Comparison,
    Row,
)
from coldrank.analysis.compare.runs import (
    ScoredRun,
    SharedRows,
    common_cohorts,
    common_numbers,
    common_tasks,
    group_by_arm,
    read_shared_rows,
)
from coldrank.data.errors import UserError
from coldrank.metrics.mann_whitney import FloatArray, Numbers

__all__ = [
    "LOWER_IS_BETTER",
    "METRICS",
    "PERCENT",
    "Comparison",
    "Interval",
    "Resampling",
    "Row",
    "compare",
    "contrast",
    "resample_users",
]

PERCENT = 100.0


def compare(
    runs: Sequence[ScoredRun],
    baseline: str,
    *,
    resamples: int = 300,
    seed: int = 0,
    allowed: Collection[str] = (),
    notes: Sequence[str] = (),
    controls: Sequence[ArmControls] = (),
) -> Comparison:
    """Compare the arms of the runs with the arm `baseline` on the tasks that all runs predict.

    Runs of different rows raise UserError, and so do runs of different data, splits, features, tasks or passes, but for
    what `allowed` names.
    notes: what else a reader must know. controls: of the arms, by `find_controls`.
    Memory: the scores of one run and task at a time, and one byte per user and draw.
    """
    notes = [*notes, *require_same_conditions(runs, baseline, allowed), *_left_out(runs), *unmoved_arms(controls)]
    rows, cohorts = read_shared_rows(runs), common_cohorts(runs)
    arms, failed = group_by_arm(runs), {run.folder: failure(run, rows) for run in runs}
    trial = _Trial(arms=_without_failed(arms, failed, baseline, notes), planned=arms, baseline=baseline)
    resampling, days = resample_users(rows, cohorts, resamples, seed), find_days(runs, rows)
    result = _all_rows(trial, rows, resampling, days)
    return Comparison(
        split=runs[0].split,
        baseline=baseline,
        resamples=resamples,
        seed=seed,
        cohorts=cohorts,
        allowed=tuple(sorted(allowed)),
        days=days.names,
        day_source=days.source,
        runs=tuple(
            ComparedRun(path=str(run.folder), arm=run.arm, seed=run.seed, failed=failed[run.folder]) for run in runs
        ),
        notes=tuple(notes),
        rows=tuple(correct(result)),
        controls=tuple(controls),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    """The runs of a comparison."""

    arms: dict[str, list[ScoredRun]]
    """Arm -> its runs that did not fail."""
    planned: dict[str, list[ScoredRun]]
    """Arm -> all of its runs."""
    baseline: str
    """The arm that the others are held against."""

    def pairs(self, arm: str) -> list[int] | None:
        """The seeds by which the arm and the baseline are paired; None where the same seeds were never planned."""
        if [run.seed for run in self.planned[arm]] != [run.seed for run in self.planned[self.baseline]]:
            return None
        ours, theirs = ({run.seed for run in self.arms[name]} for name in (arm, self.baseline))
        return sorted(ours & theirs) or None


def _without_failed(
    arms: Mapping[str, list[ScoredRun]], failed: Mapping[Path, str | None], baseline: str, notes: list[str]
) -> dict[str, list[ScoredRun]]:
    """The runs that count, with a note for each that doesn't; UserError where nothing is left to compare."""
    kept = {arm: [run for run in members if failed[run.folder] is None] for arm, members in arms.items()}
    lost = [run for members in arms.values() for run in members if failed[run.folder]]
    notes += [f"Failed, and left out: {run.folder} ({failed[run.folder]})." for run in lost]
    if not kept[baseline]:
        raise UserError(f"every run of the baseline {baseline} has failed: {failed[arms[baseline][0].folder]}")
    notes += [f"Arm {arm} is left out: all of its {len(arms[arm])} runs failed." for arm in kept if not kept[arm]]
    kept = {arm: members for arm, members in kept.items() if members}
    if len(kept) < 2:
        raise UserError(f"no arm is left to compare with {baseline}: {' '.join(notes)}")
    return kept


def _left_out(runs: Sequence[ScoredRun]) -> list[str]:
    """A line for every task that is not compared: some runs lack it, or give a number where others give a
    probability."""
    lines = []
    for task in dict.fromkeys(task for run in runs for task in (*run.tasks, *run.numbers)):
        lacking = [str(run.folder) for run in runs if task not in (*run.tasks, *run.numbers)]
        if lacking:
            lines.append(f"Task {task} is left out: not predicted by {', '.join(lacking)}.")
        elif 0 < len(numbers := [str(run.folder) for run in runs if task in run.numbers]) < len(runs):
            lines.append(f"Task {task} is left out: a number, not a probability, in {', '.join(numbers)}.")
    return lines


def _all_rows(trial: _Trial, rows: SharedRows, resampling: Resampling, days: Days) -> list[Row]:
    runs = [run for members in trial.arms.values() for run in members]
    pairs = {arm: trial.pairs(arm) for arm in trial.arms}
    failed = {arm: len(trial.planned[arm]) - len(members) for arm, members in trial.arms.items()}
    result: list[Row] = []
    tasks = [t for t in (*common_tasks(runs), *common_numbers(runs)) if t in rows.labels or t in rows.values]
    with tqdm(total=len(tasks) * len(runs), desc="compare", unit="run") as progress:
        for task in tasks:
            measured: dict[str, dict[int, Figures]] = {arm: {} for arm in trial.arms}
            for run in runs:
                measured[run.arm][run.seed] = _measure(run, task, rows, resampling, days)
                progress.update()
            labels = rows.labels.get(task, rows.values.get(task))
            assert labels is not None
            contrasts = contrast_task(task, labels, measured, trial.baseline, resampling, pairs)
            result += [replace(row, failed=failed[row.arm]) for row in contrasts]
    return result


def _measure(run: ScoredRun, task: str, rows: SharedRows, resampling: Resampling, days: Days) -> Figures:
    if task in rows.labels:
        return measure(rows.labels[task], run.scores(task), resampling, days)
    return measure_numbers(rows.values[task], run.values(task), resampling, days)


def contrast_task(
    task: str,
    labels: Numbers,
    measured: Mapping[str, Mapping[int, Figures]],
    baseline: str,
    resampling: Resampling,
    pairs: Mapping[str, Sequence[int] | None],
) -> list[Row]:
    """The rows of one task, baseline first within each cohort and metric; their verdicts are those before correction.

    labels: int8 [N], -1 where unknown; of numbers float64 [N], NaN where unknown. measured: arm -> seed -> figures.
    pairs: arm -> the seeds by which it is paired with the baseline; None: it is not.
    """
    result: list[Row] = []
    numbers = labels.dtype.kind == "f"
    order = [baseline, *(arm for arm in measured if arm != baseline)]
    for cohort, mask in resampling.cohorts.items():
        labelled = mask & (~np.isnan(labels) if numbers else labels >= 0)
        n, users = int(np.count_nonzero(labelled)), len(np.unique(resampling.users[labelled]))
        of_rows = resampling.users[labelled]
        effective = equal_users(of_rows) if numbers else effective_users(labels[labelled], of_rows)
        for index, metric in enumerate(NUMBER_METRICS if numbers else METRICS):
            for arm in order:
                means = [figures.draws[cohort][index, 0] for figures in measured[arm].values()]
                row = Row(
                    task=task,
                    cohort=cohort,
                    metric=metric,
                    arm=arm,
                    seeds=len(means),
                    n=n,
                    users=users,
                    mean=_scaled(float(np.mean(means)), metric),
                )
                if arm != baseline:
                    sides = [measured[name] for name in (arm, baseline)]
                    row = _against(row, index, sides, pairs[arm], effective)
                result.append(row)
    return result


def _against(
    row: Row, index: int, sides: Sequence[Mapping[int, Figures]], seeds: Sequence[int] | None, users: float
) -> Row:
    """The row of an arm with its difference to the baseline. sides: seed -> figures, of the arm and of the baseline."""
    chosen = [[side[seed] for seed in seeds] if seeds is not None else list(side.values()) for side in sides]
    ours, base = (np.stack([figures.draws[row.cohort][index] for figures in side]) for side in chosen)
    daily = [np.mean([figures.days[row.cohort][index] for figures in side], axis=0) for side in chosen]
    row = _with_days(row, daily[0] - daily[1])
    interval = contrast(ours, base, users, paired=seeds is not None)
    if interval is None:
        return replace(row, verdict="no value", uncorrected="no value")
    row = replace(
        row,
        pairs=None if seeds is None else len(seeds),
        difference=_scaled(interval.difference, row.metric),
        low=_scaled(interval.low, row.metric),
        high=_scaled(interval.high, row.metric),
        user_spread=_scaled(interval.user_spread, row.metric),
        seed_spread=None if interval.seed_spread is None else _scaled(interval.seed_spread, row.metric),
    )
    if row.metric in NOT_JUDGED:
        return replace(row, days_p=None, uncorrected="not judged", verdict="not judged")
    row = replace(row, p=interval.p)
    verdict = _verdict(row, interval.p)
    return replace(row, uncorrected=verdict, verdict=verdict)


def _with_days(row: Row, differences: FloatArray) -> Row:
    count, p = t_test(differences)
    known = np.isfinite(differences)
    scale = _scale(row.metric)
    daily = [round(scale * float(d), 5) if k else None for d, k in zip(differences, known, strict=True)]
    return replace(row, daily=tuple(daily), days=count, days_p=p)


def correct(rows: Sequence[Row]) -> list[Row]:
    """The rows with Holm's corrected p values, per arm: the judging metrics together, the others apart."""
    families: dict[tuple[str, bool], list[int]] = {}
    for place, row in enumerate(rows):
        if row.p is not None:
            families.setdefault((row.arm, row.metric in JUDGING), []).append(place)
    result = list(rows)
    for places in families.values():
        corrected = holm([p for place in places if (p := rows[place].p) is not None])
        for place, p in zip(places, corrected, strict=True):
            result[place] = replace(rows[place], p_corrected=p, verdict=_verdict(rows[place], p))
    return result


def _verdict(row: Row, p: float) -> str:
    if row.difference is None or p >= 1 - LEVEL:
        return "not distinguishable"
    return "better" if (row.difference > 0) != (row.metric in LOWER_IS_BETTER) else "worse"


def _scale(metric: str) -> float:
    return 1.0 if metric in IN_UNITS else PERCENT


def _scaled(value: float, metric: str) -> float | None:
    return value * _scale(metric) if np.isfinite(value) else None
