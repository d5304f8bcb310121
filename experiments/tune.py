"""A search over config fields with the same budget for every arm.

Trial 0 of every arm is the arm as it is. The others draw their fields from the trial's number alone, so by default all
arms are tried at the very same settings. With TPE (Bergstra et al., 2011) an arm's later trials follow its first.
Trials train on `train` and are judged on `valid`: the test split is not read. On a stream they are judged by the
periods that it scores before `train.steps` end it, which is to be before those that are reported.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import numpy as np
import optuna
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from coldrank.data.batches import DataFolder
from coldrank.data.cohorts import CohortConfig, cohort_masks
from coldrank.data.errors import UserError
from coldrank.data.json_files import ROW_FIELDS, read_rows
from coldrank.experiments.sweep import Job, require_distinct, run_all
from coldrank.train.config import RunConfig
from coldrank.train.dry_run import Checks
from coldrank.train.load import load
from coldrank.train.lock import Lock

Sampler = Literal["random", "tpe"]
# What trials of rankers can be judged by, and whether more of it is better.
SIGNS = {"auc": 1.0, "ne": -1.0}


@dataclass(frozen=True, slots=True)
class Field:
    """A config field to vary."""

    name: str
    """The field."""
    low: float = 0.0
    """Lower end of its range. Values are drawn log-uniformly."""
    high: float = 0.0
    """Upper end of its range."""
    choices: tuple[str, ...] = ()
    """The values to choose from; empty: a range."""

    @classmethod
    def parse(cls, text: str) -> "Field":
        """`field=low..high` or `field=a|b|c`. Raises UserError for anything else."""
        name, equals, values = text.partition("=")
        wrong = UserError(f"--vary {text}: write field=low..high (numbers above 0, drawn log-uniformly) or field=a|b|c")
        if not (name and equals and values):
            raise wrong
        if ".." not in values:
            return cls(name, choices=tuple(values.split("|")))
        try:
            low, high = map(float, values.split(".."))
        except ValueError:
            raise wrong from None
        if not 0 < low < high:
            raise wrong
        return cls(name, low, high)

    def draw(self, trial: optuna.Trial) -> None:
        """Draws a value for a trial."""
        if self.choices:
            trial.suggest_categorical(self.name, self.choices)
        else:
            trial.suggest_float(self.name, self.low, self.high, log=True)

    def override(self, value: float | str) -> str:
        """`field=value`, numbers to three significant digits."""
        return f"{self.name}={value}" if isinstance(value, str) else f"{self.name}={value:.3g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What is searched, and how."""

    module: str
    """The config module of the arms; or, with a slash at its end, a folder that holds a config of each, ARM.json."""
    fields: tuple[Field, ...]
    """The fields to vary."""
    trials: int
    """Trials of each arm."""
    seeds: int
    """Seeds of each trial."""
    tasks: tuple[str, ...]
    """The tasks that count; empty: all."""
    cohort: str
    """The cohort that it is measured on, or several, parted by commas, over which it is a mean."""
    by: tuple[str, ...]
    """What a trial's value is the sum of, mean over the tasks, in percent: `auc`; `ne`, which counts against it; of
    models that retrieve, Recall@K and NDCG@K."""
    sampler: Sampler
    """How the trials draw their fields."""
    overrides: tuple[str, ...]
    """Fields set in every trial, as `field=value`."""
    at_once: int
    """Runs side by side."""

    @property
    def cohorts(self) -> list[str]:
        """The cohorts, each by itself."""
        return self.cohort.split(",")

    def source(self, arm: str) -> str:
        """Where an arm's config comes from, as `load` takes it."""
        return f"{self.module}{arm}.json" if self.module.endswith("/") else f"{self.module}:{arm}"


def tune(search: Search, arm: str, data: DataFolder, out: Path, lock: Lock) -> dict[str, Any]:
    """Searches one arm in `out/ARM/`; a search that was cut off goes on. Returns the best trial, with all `trials`.

    lock: the lock on `out`.
    Raises UserError when every trial failed.
    """
    folder = out / arm
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    study = optuna.create_study(study_name=arm, storage=storage, direction="maximize", load_if_exists=True)
    _require_same(study, search, folder)
    # TPE learns from trials that have ended: it is asked for as many as run side by side.
    group = search.at_once if search.sampler == "tpe" else search.trials
    for first in range(0, search.trials, group):
        numbers = range(first, min(first + group, search.trials))
        jobs = {
            n: _jobs(search, arm, _overrides(_trial(study, search, n), search), folder / f"trial-{n}") for n in numbers
        }
        every = [job for of_trial in jobs.values() for job in of_trial]
        run_all(
            every, data, lock, at_once=search.at_once, fresh=False, desc=f"{arm}: trials {numbers[0]}-{numbers[-1]}"
        )
        for number, of_trial in jobs.items():
            values = [trial_value(job.out, search) for job in of_trial]
            known = [v for v in values if v is not None]
            whole = len(known) == len(values)
            study.tell(
                number, mean(known) if whole else None, None if whole else TrialState.FAIL, skip_if_finished=True
            )
    trials: list[dict[str, Any]] = [
        {"trial": t.number, "overrides": _overrides(t, search), "value": t.value} for t in study.trials[: search.trials]
    ]
    done = [t for t in trials if t["value"] is not None]
    if not done:
        raise UserError(f"{folder}: every trial failed; the logs in it say why")
    return max(done, key=lambda t: t["value"]) | {"trials": trials}


def check_search(search: Search, arms: Sequence[str], data: DataFolder) -> None:
    """Raises UserError, before any trial is run, if an arm could not begin with a setting, or lacks a task or cohort.

    Settings: the arm as it is, each choice and each end of a range by itself, and all that random trials draw.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings: list[list[str]] = [[]]
    for field in search.fields:
        settings += [[field.override(value)] for value in field.choices or (field.low, field.high)]
    if search.sampler == "random":
        drawn = optuna.create_study()
        settings += [_overrides(_trial(drawn, search, n), search) for n in range(search.trials)]
    checks = Checks(data)
    for arm in arms:
        for overrides in settings:
            config = _jobs(search, arm, overrides, Path())[0].load()
            what = " ".join([search.source(arm), *overrides])
            checks.check(what, config)
            _require_judged(search, what, config)
    require_distinct(arms, [_jobs(search, arm, [], Path())[0].load() for arm in arms])


def _require_judged(search: Search, what: str, config: RunConfig) -> None:
    """Raises UserError where runs of the config would not have what trials are judged by."""
    if config.train.mode == "periods" and not config.train.steps:
        raise UserError(
            f"{what}: is a stream, and would be judged by all of it; --set train.steps=N ends it before the periods "
            "that are to be reported"
        )
    if unknown := [task for task in search.tasks if task not in config.tasks]:
        raise UserError(f"--tasks {unknown[0]}: {what} has no such task; it has {', '.join(config.tasks)}")
    ranked = list(cohort_masks(np.empty(0, np.int64), np.empty(0, np.int64), CohortConfig()))
    has = dict.fromkeys(SIGNS, ranked) | (config.retrieval.metrics() if config.model.retrieves else {})
    if unknown := [metric for metric in search.by if metric not in has]:
        raise UserError(f"--by {','.join(search.by)}: {what} has no {unknown[0]!r}; it has {', '.join(has)}")
    if SIGNS.keys() & set(search.by):
        with_auc = [task for task, head in config.tasks.items() if "auc" in head.metrics]
        judged = search.tasks or with_auc or list(config.tasks)
        if without := [task for task in judged if task not in with_auc]:
            raise UserError(f"{what}: task {without[0]} has no AUC, by which trials are judged")
    for metric in search.by:
        if unknown := [cohort for cohort in search.cohorts if cohort not in has[metric]]:
            known = ", ".join(has[metric])
            raise UserError(f"--cohort {unknown[0]}: no such cohort has {metric!r}; there are {known}")


def _require_same(study: optuna.Study, search: Search, folder: Path) -> None:
    """A search goes on only as it began; more trials are no other search."""
    ours = {k: str(v) for k, v in asdict(search).items() if k not in ("trials", "at_once")}
    begun = {"by": str(("auc",))} | study.user_attrs.get("search", ours)  # what searches of before went by
    changed = [k for k in ours if begun.get(k) != ours[k]]
    if changed:
        raise UserError(
            f"{folder}: holds a search with other {changed[0]} ({begun.get(changed[0])}); give another --out"
        )
    study.set_user_attr("search", ours)


def _trial(study: optuna.Study, search: Search, number: int) -> FrozenTrial:
    """Trial `number` of the study, which is asked for it if it has not drawn it yet."""
    if number == len(study.trials):
        if number == 0:
            study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING))
        else:
            study.sampler = TPESampler(seed=number) if search.sampler == "tpe" else RandomSampler(seed=number)
            trial = study.ask()
            for field in search.fields:
                field.draw(trial)
    return study.trials[number]


def _overrides(trial: FrozenTrial, search: Search) -> list[str]:
    return [f.override(trial.params[f.name]) for f in search.fields if f.name in trial.params]


def _jobs(search: Search, arm: str, overrides: Sequence[str], folder: Path) -> list[Job]:
    config, given = search.source(arm), (*search.overrides, *overrides)
    stream = load(config, list(given)).train.mode == "periods"  # to which splits do not matter
    fixed = given if stream else ("data.fit=train", "data.evaluate=valid", *given)
    return [
        Job(config=config, overrides=(*fixed, f"seed={seed}"), out=folder / f"seed-{seed}")
        for seed in range(1, search.seeds + 1)
    ]


def trial_value(run: Path, search: Search) -> float | None:
    """Sum of what trials are judged by, mean over tasks and cohorts, in percent; None where the run has failed or one
    has no value."""
    summary = run / "summary.json"
    if not summary.exists():
        return None
    rows = [r for r in read_rows(summary, *ROW_FIELDS) if r["cohort"] in search.cohorts]
    total = 0.0
    for metric in search.by:
        of_metric = [r for r in rows if r["metric"] == metric and (not search.tasks or r["task"] in search.tasks)]
        values = [r["value"] for r in of_metric]
        if {r["cohort"] for r in of_metric} != set(search.cohorts) or None in values:
            return None
        total += SIGNS.get(metric, 1.0) * 100 * mean(values)
    return total
