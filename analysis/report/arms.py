"""The arms of a comparison: their runs' configs, facts and learning curves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldrank.analysis.compare.rows import Comparison
from coldrank.analysis.compare.runs import Run, group_by_arm, read_run
from coldrank.data.json_files import ROW_FIELDS, read_lines

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """`number` picks colour and marker; the baseline is 0. configs, facts (run.json, empty where a run has none) and curves
    (rows of split `fit` in metrics.jsonl) are in the order of `runs`, which is by seed."""

    name: str
    number: int
    runs: list[Run]
    configs: list[Json]
    facts: list[Json]
    curves: list[list[Json]]


def read_arms(found: Comparison) -> list[Arm]:
    """The arms compared, the baseline first, without the runs that failed. Raises UserError for a run that is no longer there."""
    groups = group_by_arm(read_run(Path(run.path), found.split) for run in found.runs if run.failed is None)
    names = [found.baseline, *(name for name in groups if name != found.baseline)]
    return [_arm(name, number, groups[name]) for number, name in enumerate(names)]


def _arm(name: str, number: int, runs: list[Run]) -> Arm:
    return Arm(
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
