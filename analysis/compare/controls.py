"""What a reader of a comparison of gates must know of each arm: how well its inputs tell new users anyway, and how far
its gates have moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from textwrap import fill

from tabulate import tabulate

from coldrank.analysis.compare.runs import ScoredRun, group_by_arm
from coldrank.data.audit.newness import NewnessTold, newness_of
from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError
from coldrank.data.json_files import ROW_FIELDS, read_rows
from coldrank.train.checks import as_arm
from coldrank.train.gates import LEAST_RANGE, RANGE
from coldrank.train.load import from_dict

WIDTH = 100
HEADS = ("arm", "inputs tell new users (AUC)", "best by", "range of its gates")
ABOUT = (
    "Inputs: the AUC with which an arm's inputs, its personalization code left out, tell new users: 0.5 not at all, 1"
    " wholly; by samples of its training. Range: how far a gate goes from the least known users (or videos, where they"
    " are the code) to well-known ones, mean over its outputs and the seeds; of a scale of 2, below"
    f" {LEAST_RANGE} is next to none."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmControls:
    """Of an arm."""

    arm: str
    """The arm."""
    newness: NewnessTold | None
    """How well its inputs tell new users; None: its data or features are not known here, or have too few of them."""
    gates: Mapping[str, float]
    """Part of its model -> range of the gates, mean over the seeds; empty: it has no gates, or none that is known."""


def find_controls(runs: Sequence[ScoredRun], data: Path | None) -> tuple[ArmControls, ...]:
    """Of every arm, in order. data: the prepared folder that the runs were trained on, if it is at hand."""
    folder = None if data is None else DataFolder.open(data)
    known: dict[tuple[object, ...], NewnessTold | None] = {}
    return tuple(
        ArmControls(arm=arm, newness=_newness(members[0], folder, known), gates=_gates(members))
        for arm, members in group_by_arm(runs).items()
    )


def _newness(
    run: ScoredRun, folder: DataFolder | None, known: dict[tuple[object, ...], NewnessTold | None]
) -> NewnessTold | None:
    """known: by what it rests on. Most arms of a comparison read the same inputs, which are looked at once."""
    if folder is None or "features" not in run.config:
        return None  # another tool's run
    try:
        arm = as_arm(from_dict(run.config, str(run.folder / "config.json")))
        inputs = frozenset(c for f in arm.features.features if f.role != "pc" for c in f.raw_columns)
        key = (inputs, arm.reads_lengths, arm.fit, arm.since, arm.new_user_max_views)
        if key not in known:
            known[key] = newness_of(folder, arm)
        return known[key]
    except UserError:  # of another version, or with parts of one's own that are not at hand
        return None


def _gates(runs: Sequence[ScoredRun]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for run in runs:
        summary = run.folder / "summary.json"
        for row in read_rows(summary, *ROW_FIELDS) if summary.is_file() else ():
            if row["metric"].startswith(RANGE) and row["split"] == run.split and row["value"] is not None:
                values.setdefault(row["metric"].removeprefix(RANGE), []).append(row["value"])
    return {part: mean(of_part) for part, of_part in values.items()}


def unmoved_arms(controls: Sequence[ArmControls]) -> list[str]:
    """A line for every arm whose gates have hardly moved."""
    return [
        f"The gates of {c.arm} hardly differ between the least and the best known users (at most"
        f" {max(c.gates.values()):.3f}): its figures do not tell what personalization is worth."
        for c in controls
        if c.gates and max(c.gates.values()) < LEAST_RANGE
    ]


def control_lines(controls: Sequence[ArmControls]) -> list[tuple[str, ...]]:
    """The cells of an arm under `HEADS`; none where nothing is known of any."""
    if not any(c.newness or c.gates for c in controls):
        return []
    return [
        (
            c.arm,
            f"{c.newness.auc:.2f}" if c.newness else "–",
            f"{c.newness.column} {c.newness.best:.2f}" if c.newness else "–",
            ", ".join(f"{part} {value:.3f}" for part, value in c.gates.items()) or "–",
        )
        for c in controls
    ]


def format_controls(controls: Sequence[ArmControls], tablefmt: str = "simple") -> str:
    """The table, and how it is read; '' where nothing is known."""
    lines = control_lines(controls)
    if not lines:
        return ""
    return f"{tabulate(lines, headers=HEADS, tablefmt=tablefmt, disable_numparse=True)}\n\n{fill(ABOUT, WIDTH)}"
