"""Run folders to compare: their predictions, and that they are of the same rows.

A run is any folder with a `config.json` that holds `name` (the arm) and `seed`, and a `predictions-<split>.parquet`. So
another tool's run, say LightGBM's, is compared by writing these two files. A `run.json` says what it was trained on.
The cohorts' thresholds are those of `cohorts` in config.json, if it has them.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from coldrank.data import parquet
from coldrank.data.cohorts import CohortConfig
from coldrank.data.errors import UserError
from coldrank.data.json_files import read_object
from coldrank.data.location import location
from coldrank.metrics.columns import int_column, label_column, number_column, require_columns, score_column
from coldrank.metrics.mann_whitney import FloatArray, IntArray, Numbers

KEYS = ("user_id", "item_id", "time")
VIEWS = ("user_views", "item_views")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredRun:
    """A run folder with predictions."""

    folder: Path
    """The folder."""
    arm: str
    """`name` of its config.json."""
    seed: int
    """`seed` of its config.json."""
    split: str
    """The split that it predicts."""
    tasks: tuple[str, ...]
    """The tasks that it predicts the probability of."""
    numbers: tuple[str, ...]
    """The tasks that it predicts a number of, `pred_<task>`."""
    cohorts: CohortConfig | None
    """The thresholds of its config.json; None: it has none."""
    config: dict[str, Any]
    """Its config.json."""
    facts: dict[str, Any]
    """Its run.json; empty: it has none."""

    @property
    def predictions(self) -> Path:
        """The file of its predictions."""
        return self.folder / f"predictions-{self.split}.parquet"

    def scores(self, task: str) -> Numbers:
        """`prob_<task>`, float32 or float64 [N]; a value that is no probability raises UserError."""
        return score_column(self.raw_scores(task), f"prob_{task}", str(self.predictions))

    def values(self, task: str) -> Numbers:
        """`pred_<task>`, float64 [N]; a value that is not finite raises UserError."""
        return number_column(self.raw_scores(task), f"pred_{task}", str(self.predictions), unknown=False)

    def raw_scores(self, task: str) -> pl.DataFrame:
        """The column `prob_<task>`, or `pred_<task>` of a number, unchecked."""
        return parquet.read(self.predictions, [f"{'pred' if task in self.numbers else 'prob'}_{task}"])


def read_run(folder: Path, split: str) -> ScoredRun:
    """Read `name`, `seed` and the schema of the predictions; UserError names what is missing or of the wrong type."""
    config = folder / "config.json"
    fields = read_object(config, "a run folder holds config.json with name and seed")
    facts = folder / "run.json"
    name, seed = fields.get("name"), fields.get("seed")
    if not isinstance(name, str) or not name:
        raise UserError(f"{config}: name is {name!r}; expected the arm's name")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise UserError(f"{config}: seed is {seed!r}; expected an integer")
    cohorts = _cohorts(config, fields["cohorts"]) if "cohorts" in fields else None
    path = folder / f"predictions-{split}.parquet"
    if not path.is_file():
        command = f"coldrank evaluate --run {folder} --split {split} --predictions {path}"
        raise UserError(f"{path}: no such file; write it with `{command}`")
    columns = parquet.schema(path).names
    require_columns(columns, [*KEYS, *VIEWS], str(path))
    tasks = tuple(c.removeprefix("prob_") for c in columns if c.startswith("prob_"))
    numbers = tuple(t for c in columns if c.startswith("pred_") and (t := c.removeprefix("pred_")) not in tasks)
    if not tasks and not numbers:
        raise UserError(f"{path}: no column prob_<task> or pred_<task>")
    require_columns(columns, [f"label_{task}" for task in (*tasks, *numbers)], str(path))
    return ScoredRun(
        folder=folder,
        arm=name,
        seed=seed,
        split=split,
        tasks=tasks,
        numbers=numbers,
        cohorts=cohorts,
        config=fields,
        facts=read_object(facts) if facts.is_file() else {},
    )


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """The run folders of some paths: of a folder of run folders, as `train --arms` leaves it, those in it."""
    folders: list[Path] = []
    for path in paths:
        inside = [] if (path / "config.json").is_file() else sorted(path.glob("*/config.json"))
        folders += [config.parent for config in inside] or [path]
    return folders


def without_run(paths: Iterable[Path]) -> list[str]:
    """A line for every run in a folder of run folders that failed before it wrote its config.json: its log is there."""
    lines = []
    for path in paths:
        if (path / "config.json").is_file():
            continue
        for log in sorted(path.glob("*.log")):
            folder = log.with_name(log.name.removesuffix(".log"))
            if not (folder / "config.json").is_file():
                printed = log.read_text(errors="replace").strip().splitlines()
                last = printed[-1].rpartition("\r")[2] if printed else "nothing"
                lines.append(f"Failed, and left out: {folder} (no run in it; its log ends: {last}).")
    return lines


def find_data(facts: Sequence[Mapping[str, Any]], data: Path | None) -> tuple[Path | None, str]:
    """The prepared folder that runs were trained on: `data`, else where the runs say that it was; with None, the reason
    in a sentence.

    facts: the runs' run.json. A folder that another preparation has overwritten since is not shown.
    """
    facts = [run for run in facts if run.get("data_path")]
    folder = data or (location(facts[0]["data_path"]) if facts else None)
    if folder is None:
        return None, "The runs do not say which prepared data they are of; compare with --data DATA shows its card."
    if not (folder / "manifest.json").is_file():
        return None, f"The prepared data is no longer at {folder}; compare with --data DATA shows its card."
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    if any(run.get("data_digest", digest) != digest for run in facts):
        return None, f"The data at {folder} is not the data that the runs were trained on."
    return folder, ""


def group_by_arm(runs: Iterable[ScoredRun]) -> dict[str, list[ScoredRun]]:
    """Arm -> its runs by seed, arms in the order given; two runs of one arm and seed raise UserError."""
    arms: dict[str, list[ScoredRun]] = {}
    for run in runs:
        same = [other for other in arms.get(run.arm, []) if other.seed == run.seed]
        if same:
            raise UserError(
                f"{same[0].folder} and {run.folder} are both arm {run.arm}, seed {run.seed}; give one of them"
            )
        arms.setdefault(run.arm, []).append(run)
    return {arm: sorted(members, key=lambda run: run.seed) for arm, members in arms.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedRows:
    """What all runs must agree on."""

    users: IntArray
    """Ids, int64 [N]."""
    items: IntArray
    """Ids, int64 [N]."""
    times: IntArray
    """Milliseconds since the epoch, int64 [N]."""
    user_views: IntArray
    """Events of the user before, int64 [N]."""
    item_views: IntArray
    """Events of the item before, int64 [N]."""
    labels: dict[str, IntArray]
    """Task -> labels, int8 [N]; -1 where unknown."""
    values: dict[str, FloatArray] = field(default_factory=dict)
    """Task of numbers -> labels, float64 [N]; NaN where unknown."""


def read_shared_rows(runs: Sequence[ScoredRun]) -> SharedRows:
    """Rows of the first run, after checking that every other run has the same ones in the same order.

    Compared are the keys, the views and the labels of the tasks that all runs predict. UserError names the first
    difference.
    """
    tasks, numbers = common_tasks(runs), common_numbers(runs)
    reference = _shared(runs[0], tasks, numbers)
    for run in runs[1:]:
        other = _shared(run, tasks, numbers)
        for name, expected in reference.items():
            _require_equal(name, runs[0].predictions, expected, run.predictions, other[name])
    return SharedRows(
        users=reference["user_id"],
        items=reference["item_id"],
        times=reference["time"],
        user_views=reference["user_views"],
        item_views=reference["item_views"],
        labels={task: reference[f"label_{task}"] for task in tasks},
        values={task: reference[f"label_{task}"] for task in numbers},
    )


def common_tasks(runs: Sequence[ScoredRun]) -> list[str]:
    """The tasks that every run predicts the probability of, in the first run's order; UserError if there are none, and
    no numbers either."""
    tasks = [task for task in runs[0].tasks if all(task in run.tasks for run in runs)]
    if not tasks and not common_numbers(runs):
        listed = "; ".join(f"{run.folder}: {', '.join((*run.tasks, *run.numbers))}" for run in runs)
        raise UserError(f"no task is predicted by every run ({listed})")
    return tasks


def common_numbers(runs: Sequence[ScoredRun]) -> list[str]:
    """The tasks that every run predicts a number of, in the first run's order."""
    return [task for task in runs[0].numbers if all(task in run.numbers for run in runs)]


def common_cohorts(runs: Sequence[ScoredRun]) -> CohortConfig:
    """The thresholds in the runs' configs, which must agree; the default where none has any."""
    thresholds = [(run, run.cohorts) for run in runs if run.cohorts is not None]
    if not thresholds:
        return CohortConfig()
    (first, expected), *others = thresholds
    for run, cohorts in others:
        if cohorts != expected:
            raise UserError(
                f"{run.folder / 'config.json'}: cohorts is {cohorts}, but {expected} in {first.folder};"
                " compare runs with the same cohorts"
            )
    return expected


def _cohorts(path: Path, values: Any) -> CohortConfig:
    try:
        cohorts = CohortConfig(**values)
        if not all(isinstance(value, int) for value in dataclasses.astuple(cohorts)):
            raise TypeError
        return cohorts
    except TypeError:
        names = ", ".join(field.name for field in dataclasses.fields(CohortConfig))
        raise UserError(f"{path}: cohorts is {values!r}; expected whole numbers for {names}") from None


def _shared(run: ScoredRun, tasks: Sequence[str], numbers: Sequence[str]) -> dict[str, Numbers]:
    where = str(run.predictions)
    frame = parquet.read(run.predictions, [*KEYS, *VIEWS, *(f"label_{task}" for task in (*tasks, *numbers))])
    if frame.height == 0:
        raise UserError(f"{where}: no rows")
    columns: dict[str, Numbers] = {n: int_column(frame, n, where).astype(np.int64) for n in (*KEYS, *VIEWS)}
    columns |= {f"label_{task}": label_column(frame, task, where) for task in tasks}
    return columns | {f"label_{task}": number_column(frame, f"label_{task}", where) for task in numbers}


def _require_equal(name: str, path: Path, values: Numbers, other_path: Path, other: Numbers) -> None:
    if len(values) != len(other):
        raise UserError(
            f"{path} has {len(values):,} rows, {other_path} {len(other):,}; compare runs scored on the same rows"
        )
    different = (values != other) & ~(np.isnan(values) & np.isnan(other))
    if different.any():
        row = int(np.argmax(different))
        raise UserError(
            f"row {row}: {name} is {values[row]} in {path} but {other[row]} in {other_path}"
            f" ({int(different.sum()):,} rows differ); compare runs scored on the same rows in the same order"
        )
