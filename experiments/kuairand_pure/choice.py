"""Settings are chosen on the days of validation, by the mean of GAUC and nDCG@5 of one seed, and written down before
the days of test are scored.

    OUT/runs/ARM-N/seed-S/   setting N of an arm: a run folder
    OUT/chosen/ARM.json      what was tried, and what was chosen
    OUT/frozen.json          the choice of all arms; without it no run scores the days of test
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError, meant
from coldrank.data.json_files import ROW_FIELDS, read_object, read_rows
from coldrank.data.output import write_atomic
from coldrank.experiments.sweep import Job, run_all
from coldrank.train import checkpoint
from coldrank.train.distributed.ranks import process_group
from coldrank.train.evaluate import predict, write_predictions
from coldrank.train.load import load
from coldrank.train.lock import Lock
from coldrank.train.run import build

TASK = "long_view"
Settings = Mapping[str, Sequence[Sequence[str]]]


def settings_of(module: str, arms: Sequence[str]) -> dict[str, list[tuple[str, ...]]]:
    """Arm -> what is tried, from the config module's `SETTINGS`; of an arm that is not there, the arm as it is.

    Raises UserError for an arm that is there twice, cannot be loaded, or is not judged as the protocol asks.
    """
    if ":" in module or module.endswith(".json"):
        raise UserError(f"--config {module}: give the module alone, as in coldrank.configs.kuairand_pure")
    result = {}
    for arm in arms:
        config = load(f"{module}:{arm}")
        if arm in result:
            raise UserError(f"--arms: {arm!r} is there twice")
        if TASK not in config.tasks:
            raise UserError(f"--arms {arm}: has no task {TASK!r}; {meant(TASK, config.tasks)}")
        if (config.data.fit, config.data.evaluate) != (("train",), "valid"):
            raise UserError(f"--arms {arm}: should have data.fit=train and data.evaluate=valid: test days are hidden")
        if missing := {"positive_gauc", "user_ndcg"} - {m.short_name() for m in config.metrics}:
            raise UserError(f"--arms {arm}: metrics lack {min(missing)!r}, by which settings are chosen")
        tried: Settings = getattr(importlib.import_module(module), "SETTINGS", {})
        result[arm] = [tuple(fields) for fields in tried.get(arm, ((),))]
    return result


def choose(
    module: str, arm: str, tried: Sequence[tuple[str, ...]], seeds: int, data: DataFolder, out: Path, at_once: int
) -> dict[str, Any]:
    """Trains every setting with seed 1, and the best with all seeds; what is done is skipped. Returns what
    OUT/chosen/ARM.json holds.

    Raises UserError if a run of the chosen setting failed, or every setting.
    """
    job = lambda number, seed: Job(
        config=f"{module}:{arm}",
        overrides=(*tried[number], f"seed={seed}"),
        out=out / "runs" / f"{arm}-{number}" / f"seed-{seed}",
    )
    first = [job(number, 1) for number in range(len(tried))]
    with Lock(out / "locks" / arm) as lock:
        run_all(first, data, lock, at_once=at_once, fresh=False, desc=f"{arm}: settings")
        values = [valid_figures(j.out) if j.is_done(data) else None for j in first]
        known = {number: value for number, value in enumerate(values) if value is not None}
        if not known:
            raise UserError(f"{out}/runs/{arm}-*: every run failed; the logs beside them say why")
        best = max(known, key=lambda number: known[number]["primary"])
        every = [job(best, seed) for seed in range(1, seeds + 1)]
        if failed := run_all(every, data, lock, at_once=at_once, fresh=False, desc=f"{arm}: seeds"):
            raise UserError(f"{len(failed)} of {seeds} runs failed; the first: {failed[0]}")
        settings = [{"fields": list(f), "valid": v} for f, v in zip(tried, values, strict=True)]
        chosen = {"arm": arm, "setting": best, "fields": list(tried[best]), "settings": settings}
        (out / "chosen").mkdir(parents=True, exist_ok=True)
        write_atomic(out / "chosen" / f"{arm}.json", json.dumps(chosen, indent=1) + "\n")
    return chosen


def valid_figures(run: Path) -> dict[str, float]:
    """GAUC, nDCG@5 and their mean on the days of validation, as the run found them."""
    rows = read_rows(run / "summary.json", *ROW_FIELDS)
    of = {r["metric"]: r["value"] for r in rows if (r["task"], r["cohort"], r["split"]) == (TASK, "all", "valid")}
    gauc, ndcg = float(of["positive_gauc"]), float(of["user_ndcg"])
    return {"gauc": gauc, "ndcg@5": ndcg, "primary": (gauc + ndcg) / 2}


def freeze(out: Path, facts: Mapping[str, Any]) -> None:
    """Writes the choice of all arms down, once. Raises UserError if another one has been."""
    path = out / "frozen.json"
    text = json.dumps(facts, indent=1) + "\n"
    if not path.exists():
        write_atomic(path, text)
        return
    before, now = read_object(path), json.loads(text)
    if changed := next((name for name in {**now, **before} if before.get(name) != now.get(name)), ""):
        raise UserError(f"{path}: {changed} was another when the days of test were scored; give another --out")


def score(run_folder: Path, data: DataFolder, split: str, predictions: Path) -> None:
    """Writes the predictions of a trained run for a split, if they are not there."""
    if predictions.exists():
        return
    with process_group() as ranks:
        run = build(load(str(run_folder / "config.json")), data, ranks)
        if not checkpoint.steps(run_folder / "checkpoints"):
            raise UserError(f"{run_folder}: no checkpoint in it")
        run.load(run_folder / "checkpoints", {})
        frame = predict(run, split)
        assert frame is not None  # one rank
        write_predictions(frame, predictions)
