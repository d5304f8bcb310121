"""What makes runs comparable: the same data, splits, features, tasks and passes, and training that did not fail.

The rule for failed runs is fixed here, before any figure is seen, and looks at one run at a time, so that it can favour
no arm. A run has failed when

- a prediction is not finite, or
- of a task of numbers with at least 100 labels that are not all alike, its predictions are all equal, or
- for some task with at least 100 labels of either class on the split, its predictions are all equal, or
- for such a task they rank no better than chance (AUC on all rows below 0.52) and the label rate alone would predict as
  well (normalised entropy not below 1).

A run that is merely worse than its like has not failed: it counts, and widens the spread over seeds.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl

from coldrank.analysis.compare.aspects import Aspect
from coldrank.analysis.compare.runs import ScoredRun, SharedRows
from coldrank.data.errors import UserError
from coldrank.metrics import by_cohort as metrics
from coldrank.metrics.mann_whitney import FloatArray, IntArray
from coldrank.train.difference import flat

FEWEST_OF_A_CLASS = 100
CHANCE_AUC = 0.52
# What differs between two runs in one respect, in words; None where nothing does or one of them doesn't tell.
Difference = Callable[[ScoredRun, ScoredRun], str | None]


def failure(run: ScoredRun, rows: SharedRows) -> str | None:
    """Why the run has failed, or None. Values that are no probability and yet finite raise UserError."""
    for task, labels in rows.labels.items():
        reason = _task_failure(run, task, labels)
        if reason:
            return reason
    for task, values in rows.values.items():
        if reason := _number_failure(run, task, values):
            return reason
    return None


def _number_failure(run: ScoredRun, task: str, labels: FloatArray) -> str | None:
    column = run.raw_scores(task)[f"pred_{task}"]
    if reason := _not_finite(column):
        return reason
    known = labels[~np.isnan(labels)]
    predictions = run.values(task)
    if len(known) >= FEWEST_OF_A_CLASS and known.min() < known.max() and predictions.min() == predictions.max():
        return f"every pred_{task} is {predictions[0]:.4g}"
    return None


def _not_finite(column: pl.Series) -> str | None:
    if not column.dtype.is_float() or column.null_count():
        return None
    finite = np.isfinite(column.to_numpy())
    row = int(np.argmin(finite)) if len(finite) else 0
    return None if finite.all() else f"{column.name} is {column[row]} at row {row}"


def _task_failure(run: ScoredRun, task: str, labels: IntArray) -> str | None:
    column = run.raw_scores(task)[f"prob_{task}"]
    if reason := _not_finite(column):
        return reason
    positives, negatives = int(np.count_nonzero(labels == 1)), int(np.count_nonzero(labels == 0))
    if min(positives, negatives) < FEWEST_OF_A_CLASS:
        return None
    scores = run.scores(task)
    if scores.min() == scores.max():
        return f"every prob_{task} is {scores[0]:.4g}"
    auc, entropy = metrics.auc(labels, scores), metrics.ne(labels, scores)
    if entropy >= 1 and auc < CHANCE_AUC:
        return f"{task}: AUC is {100 * auc:.2f}, no better than chance, and NE is {entropy:.3f}, not below 1"
    return None


def require_same_conditions(runs: Sequence[ScoredRun], baseline: str, allowed: Iterable[str]) -> list[str]:
    """Lines on the differences that `allowed` (values of `Aspect`) lets pass; any other raises UserError that names it.

    Each run is held against the first run of the baseline that has a known value, else the first of any arm. A run that
    run.json calls unfinished raises UserError too.
    """
    for run in runs:
        if run.facts.get("finished") is False:
            raise UserError(f"{run.folder}: run.json says that it is not finished; `coldrank train` goes on with it")
    ordered = sorted(runs, key=lambda run: run.arm != baseline)
    notes: dict[str, None] = {}
    for aspect, difference in ASPECTS.items():
        differences = _first_differences(ordered, difference)
        if differences and aspect not in allowed:
            reference, run, text = differences[0]
            raise UserError(
                f"{run.folder}: other {aspect} than {reference.folder}: {text}; where that is meant, --allow {aspect}"
            )
        notes |= {f"Allowed: {run.arm} has other {aspect} than {a.arm}: {text}.": None for a, run, text in differences}
    return list(notes)


def require_distinct(runs: Sequence[ScoredRun]) -> None:
    """Raises UserError for two runs of one arm and seed, and says in what they differ."""
    seen: dict[tuple[str, int], ScoredRun] = {}
    for run in runs:
        other = seen.setdefault((run.arm, run.seed), run)
        if other is not run:
            texts = [f"other {name}: {text}" for name, differs in ASPECTS.items() if (text := differs(other, run))]
            theirs, ours = flat(other.config), flat(run.config)
            fields = [k for k in dict.fromkeys([*theirs, *ours]) if theirs.get(k) != ours.get(k)]
            texts += [f"{k} is {ours.get(k)!r}, not {theirs.get(k)!r}" for k in fields] if not texts else []
            raise UserError(
                f"{run.folder} and {other.folder} are both arm {run.arm}, seed {run.seed} "
                f"({_shortened(texts) or 'nothing in their files tells them apart'});"
                " give one of them, or train one with --set name="
            )


def _first_differences(runs: Sequence[ScoredRun], difference: Difference) -> list[tuple[ScoredRun, ScoredRun, str]]:
    """(reference, run, difference) of every run that differs; the reference is the first run that has a known value."""
    # A run whose value is unknown differs from none, itself included.
    reference = next((run for run in runs if difference(run, run) is not None), None)
    if reference is None:
        return []
    texts = ((run, difference(reference, run)) for run in runs)
    return [(reference, run, text) for run, text in texts if text]


def _differ(value: Callable[[ScoredRun], Any], text: Callable[[Any, Any], str]) -> Difference:
    """Of two known values of `value` (None: unknown): "" where they are equal, else `text` of both."""

    def difference(a: ScoredRun, b: ScoredRun) -> str | None:
        ours, theirs = value(b), value(a)
        if ours is None or theirs is None:
            return None
        return "" if ours == theirs else text(ours, theirs)

    return difference


def _splits(run: ScoredRun) -> dict[str, Any] | None:
    data = run.config.get("data")
    if not isinstance(data, dict):
        return None
    # Without a first period, all are read, as by runs of before there was one.
    return {f"data.{name}": data[name] for name in ("since", "fit", "evaluate") if data.get(name)} or None


def _tasks(run: ScoredRun) -> list[str] | None:
    tasks = run.config.get("tasks")
    return sorted(tasks) if isinstance(tasks, dict) else None


def _features(run: ScoredRun) -> dict[str, dict[str, Any]] | None:
    """The features that the model reads, by name.

    A personalization code of a column that the model reads anyway is no further feature: it is what the arms are for.
    """
    features, model = run.config.get("features"), run.config.get("model", {})
    if not isinstance(features, list) or not all(isinstance(f, dict) and "name" in f for f in features):
        return None
    plain = {f["name"]: f for f in features if f.get("role") != "pc"}
    columns = {column for f in plain.values() for column in _columns(f)}
    personalized = model.get("pc", "feature") == "feature" and any(
        value is True for key, value in model.items() if key.startswith("poso_")
    )
    codes = [f for f in features if f.get("role") == "pc"] if personalized else []
    return plain | {f["name"]: f for f in codes if not columns.issuperset(_columns(f))}


def _columns(feature: dict[str, Any]) -> list[str]:
    return feature.get("columns") or [feature.get("column") or feature["name"]]


def _feature_difference(a: ScoredRun, b: ScoredRun) -> str | None:
    theirs, ours = _features(a), _features(b)
    if ours is None or theirs is None:
        return None
    texts = [f"lacks {name}" for name in theirs if name not in ours]
    texts += [f"adds {name}" for name in ours if name not in theirs]
    for name in theirs:
        # A field that one of them lacks is of another version of the program.
        for key in theirs[name].keys() & ours.get(name, {}).keys():
            if theirs[name][key] != ours[name][key]:
                texts.append(f"{name}.{key} is {ours[name][key]!r}, not {theirs[name][key]!r}")
    return _shortened(texts)


def _pass_difference(a: ScoredRun, b: ScoredRun) -> str | None:
    """Samples read in training where both tell, up to a batch; else the length that the configs ask for."""
    ours, theirs = b.facts.get("samples"), a.facts.get("samples")
    if isinstance(ours, int) and isinstance(theirs, int):
        batch = max(_step_rows(run) for run in (a, b))
        return "" if abs(ours - theirs) <= batch else f"{ours:,} samples read in training, not {theirs:,}"
    return _differ(_length, lambda ours, theirs: f"{_worded(ours)}, not {_worded(theirs)}")(a, b)


def _step_rows(run: ScoredRun) -> int:
    """Samples of a step, of all ranks."""
    data = run.config.get("data", {})
    return int(data.get("global_batch_size", 0) or data.get("batch_size", 0) * run.facts.get("world_size", 1))


def _length(run: ScoredRun) -> dict[str, int] | None:
    train, data = run.config.get("train"), run.config.get("data", {})
    if not isinstance(train, dict) or "epochs" not in train:
        return None
    if train.get("steps", 0) > 0:
        name = "global_batch_size" if data.get("global_batch_size") else "batch_size"
        return {f"train.steps x data.{name}": train["steps"] * data.get(name, 1)}
    return {"train.epochs": train["epochs"], "train.cold_passes": train.get("cold_passes", 0)}


def _worded(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _shortened(texts: Sequence[str], most: int = 4) -> str:
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return ", ".join([*texts[:most], *more])


ASPECTS: dict[Aspect, Difference] = {
    Aspect.DATA: _differ(lambda run: run.facts.get("data_digest"), lambda a, b: f"manifest digest {a:.8}, not {b:.8}"),
    Aspect.SPLITS: _differ(_splits, lambda a, b: f"{_worded(a)}, not {_worded(b)}"),
    Aspect.FEATURES: _feature_difference,
    Aspect.TASKS: _differ(_tasks, lambda a, b: f"{', '.join(a)}, not {', '.join(b)}"),
    Aspect.PASSES: _pass_difference,
}
