"""The arms of a comparison: their runs' configs, facts and learning curves."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldrank.train.compare.rows import Comparison
from coldrank.train.compare.runs import Run, group_by_arm, read_run

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
        configs=[json.loads((run.folder / "config.json").read_text()) for run in runs],
        facts=[_facts(run.folder / "run.json") for run in runs],
        curves=[_curve(run.folder / "metrics.jsonl") for run in runs],
    )


def _facts(path: Path) -> Json:
    """run.json; older folders and other tools' lack it."""
    facts = json.loads(path.read_text()) if path.is_file() else {}
    return facts if isinstance(facts, dict) else {}


def _curve(path: Path) -> list[Json]:
    if not path.is_file():
        return []
    with path.open() as file:
        rows = (json.loads(line) for line in file if '"fit"' in line)
        return [row for row in rows if row.get("split") == "fit" and row.get("value") is not None]
