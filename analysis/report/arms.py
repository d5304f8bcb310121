"""The arms of a comparison: their runs' configs, facts and learning curves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldrank.analysis.compare.rows import Comparison
from coldrank.analysis.compare.runs import ScoredRun, group_by_arm, read_run
from coldrank.data.json_files import ROW_FIELDS, read_lines

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportedArm:
    """An arm of the report, with its runs."""

    name: str
    """The arm."""
    number: int
    """Picks its colour and marker; the baseline is 0."""
    runs: list[ScoredRun]
    """Its runs, by seed."""
    configs: list[Json]
    """Each run's config.json."""
    facts: list[Json]
    """Each run's run.json; empty: it has none."""
    curves: list[list[Json]]
    """Each run's rows of split `fit` in metrics.jsonl."""


def read_arms(comparison: Comparison) -> list[ReportedArm]:
    """The arms compared, the baseline first, without the runs that failed.

    Raises UserError for a run that is no longer there.
    """
    kept = [run for run in comparison.runs if run.failed is None]
    groups = group_by_arm(read_run(Path(run.path), comparison.split) for run in kept)
    names = [comparison.baseline, *(name for name in groups if name != comparison.baseline)]
    return [_arm(name, number, groups[name]) for number, name in enumerate(names)]


def _arm(name: str, number: int, runs: list[ScoredRun]) -> ReportedArm:
    return ReportedArm(
        name=name,
        number=number,
        runs=runs,
        configs=[run.config for run in runs],
        facts=[run.facts for run in runs],
        curves=[_curve(run.folder / "metrics.jsonl") for run in runs],
    )


def _curve(path: Path) -> list[Json]:
    if not path.is_file():
        return []
    rows = read_lines(path, *ROW_FIELDS)
    return [row for row in rows if row["split"] == "fit" and row["value"] is not None]
