"""Methods compared under one protocol: arms, trials, reported runs, leak tests. What is done is not done again."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from coldrank.analysis.benchmark.outcome import Benchmark, Outcome, costs
from coldrank.data.batches import DataFolder
from coldrank.data.errors import Preempted, UserError
from coldrank.data.json_files import read_object
from coldrank.data.output import make_folder, write_atomic
from coldrank.experiments.benchmark.budget import BudgetPlan, Cost, Work, fit
from coldrank.experiments.benchmark.method import BenchmarkMethod, Suite, arm_of, fields_of
from coldrank.experiments.benchmark.protocol import BenchmarkProtocol, protocol_of
from coldrank.experiments.sweep import Job, overrides_of_jobs, run_all
from coldrank.experiments.tune import Search, check_search, tune
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.difference import difference
from coldrank.train.dry_run import Checks
from coldrank.train.load import from_dict
from coldrank.train.lock import Lock

# Of the short run that tells what a run costs.
PROBE_STEPS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What is asked for."""

    suite: Suite
    """The suite."""
    base: RunConfig
    """The arm that all methods start from."""
    about_base: str
    """Where it comes from."""
    methods: tuple[BenchmarkMethod, ...]
    """Those to compare."""
    trials: int
    """Settings that each is tried at."""
    seeds: int
    """Runs of each that are reported."""
    by: str
    """What trials are judged by, as `tune --by` takes it."""
    cohort: str
    """The cohorts of that."""
    tasks: tuple[str, ...]
    """The tasks of that; empty: all that have it."""
    vary: tuple[str, ...]
    """What the trials of all arms draw."""
    budget: float | None
    """Seconds; None: as long as it takes."""
    at_once: int
    """Runs side by side."""

    def to_json(self) -> dict[str, Any]:
        """What a benchmark goes on by. Methods may join later, but where a budget was shared out among them."""
        kept = {f: getattr(self, f) for f in ("trials", "seeds", "by", "cohort", "tasks", "vary", "budget", "at_once")}
        kept |= {"methods": [m.name for m in self.methods]} if self.budget else {}
        return json.loads(json.dumps({"suite": self.suite.name} | kept))


@dataclass(slots=True)
class Arms:
    """The arms of a benchmark, the base first, and what was left out."""

    configs: dict[str, RunConfig]
    """Name -> config, before any trial."""
    vary: dict[str, tuple[str, ...]]
    """Name -> what its trials draw, as a method writes it."""
    about: dict[str, str]
    """Name -> what it is, in a line."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Name -> why it does not apply."""


def make_arms(setting: Setting, data: DataFolder) -> Arms:
    """The arms, each built once without its memory. Raises UserError for a base or a method asked for by name that
    cannot be, or that is there twice; a method of the suite that does not apply is left out."""
    base, checks = setting.base, Checks(data)
    if wrong := protocol_of(setting.suite.protocol).problem(base, data, setting.trials):
        raise UserError(f"{base.name}: {wrong}")
    checks.check(f"{base.name} (the base)", base)
    arms = Arms({base.name: base}, {base.name: setting.vary}, {base.name: setting.about_base})
    for method in setting.methods:
        if method.name in arms.configs and method.is_asked_for:
            raise UserError(f"method {method.name!r} is there twice, or is the base")
        try:
            config = arm_of(method, base)
            checks.check(method.name, config)
        except (UserError, ValueError) as error:
            why = str(error).removeprefix(f"{method.name}: ").removeprefix(f"{method.name}: ")
            if method.is_asked_for:
                raise UserError(f"{method.name}: {why}") from None
            arms.left_out[method.name] = why
            continue
        arms.configs[method.name] = config
        arms.vary[method.name] = (*setting.vary, *method.vary)
        arms.about[method.name] = method.about
    if len(arms.configs) < 2:
        reasons = "; ".join(f"{name}: {why}" for name, why in arms.left_out.items())
        raise UserError(f"{setting.suite.name}: no method applies to {base.name} ({reasons})")
    return arms


def check(arms: Arms) -> None:
    """Raises UserError, before anything runs, for what cannot be searched."""
    for name, config in arms.configs.items():
        fields_of(config, arms.vary[name])


def run(setting: Setting, arms: Arms, data: DataFolder, out: Path, lock: Lock) -> Benchmark:
    """The whole benchmark in `out`, which goes on where it stopped. Raises UserError where `out` holds another, and
    where the base has no run."""
    protocol = protocol_of(setting.suite.protocol)
    _hold(setting, arms, data, out)
    searches = {name: _search(setting, arms, protocol, data, out, name) for name in arms.configs}
    for name, search in searches.items():
        if setting.trials > 1:
            check_search(search, [name], data)
    plan = _plan(setting, arms, protocol, data, out, lock)
    for line in plan.cut:
        tqdm.write(f"--budget: {line}")
    arms = _of_share(arms, plan)
    best: dict[str, dict[str, Any]] = {}
    failed: dict[str, list[str]] = {name: [] for name in arms.configs}
    for name in arms.configs:
        try:
            best[name] = _tuned(searches[name], name, plan, setting, protocol, data, out / "search", lock)
        except UserError as error:
            lock.check()
            if name == setting.base.name:
                raise
            failed[name].append(str(error))
    jobs = {name: _jobs(setting, arms, protocol, data, out, plan, name, best[name]["overrides"]) for name in best}
    every = [job for of_seed in zip(*jobs.values(), strict=True) for job in of_seed]
    run_all(every, data, lock, at_once=setting.at_once, fresh=False, desc="runs")
    outcomes = []
    for name in tqdm(arms.configs, desc="leak tests", unit="method"):
        lock.check()
        ended = [job for job in jobs.get(name, ()) if job.is_done(data)]
        failed[name] += [f"{job.out}: {_last_line(job.log)}" for job in jobs.get(name, ()) if job not in ended]
        if not ended and name == setting.base.name:
            raise UserError(f"the base has no run: {failed[name][0]}")
        tested = _leak_test(protocol, ended[0], data, out / "leaks", name) if ended else {"untested": "it has no run"}
        outcomes.append(
            Outcome(
                name=name,
                about=arms.about[name],
                overrides=tuple(best[name]["overrides"]) if name in best else (),
                trials=len(best[name]["trials"]) if name in best else 0,
                value=best[name]["value"] if name in best else None,
                runs=tuple(str(job.out) for job in ended),
                failed=tuple(failed[name]),
                **costs([job.out for job in ended]),
                **tested,
            )
        )
    return Benchmark(
        suite=setting.suite.name,
        base=setting.base.name,
        by=setting.by,
        cohort=setting.cohort,
        tasks=setting.tasks,
        data=str(data.path),
        split=protocol.split(setting.base),
        trials=plan.trials,
        seeds=plan.seeds,
        share=plan.share,
        cut=plan.cut,
        outcomes=tuple(outcomes),
        left_out=arms.left_out,
    )


def _hold(setting: Setting, arms: Arms, data: DataFolder, out: Path) -> None:
    """Writes what the benchmark is, or compares it with what `out` holds."""
    path, ours = out / "setting.json", setting.to_json() | {"data": data.digest}
    if path.exists():
        begun = read_object(path)
        for name, value in ours.items():
            if begun.get(name) != value:
                raise UserError(f"{out}: holds a benchmark with other {name} ({begun.get(name)}); give another --out")
    make_folder(out / "arms")
    for name, config in arms.configs.items():
        file = _arm_file(out, name)
        if file.exists():
            if changed := difference(config, from_dict(read_object(file), str(file))):
                raise UserError(f"{file}: was another arm ({changed.splitlines()[0]}); give another --out")
        else:
            write_atomic(file, json.dumps(to_dict(config), indent=1) + "\n")
    write_atomic(path, json.dumps(ours, indent=1) + "\n")


def _arm_file(out: Path, name: str) -> Path:
    return out / "arms" / f"{name}.json"


def _search(
    setting: Setting, arms: Arms, protocol: BenchmarkProtocol, data: DataFolder, out: Path, name: str
) -> Search:
    fields = protocol.trial_fields(setting.base, data) if setting.trials > 1 else ()
    return Search(
        module=f"{(out / 'arms').absolute()}/",
        fields=fields_of(arms.configs[name], arms.vary[name]),
        trials=setting.trials,
        seeds=1,
        tasks=setting.tasks,
        cohort=setting.cohort,
        by=tuple(dict.fromkeys(setting.by.split(","))),
        sampler="random",
        overrides=(*overrides_of_jobs(setting.at_once), *fields),
        at_once=setting.at_once,
    )


def _plan(
    setting: Setting, arms: Arms, protocol: BenchmarkProtocol, data: DataFolder, out: Path, lock: Lock
) -> BudgetPlan:
    """What every method gets: all that was asked for, or what fits the budget, as it was found the first time."""
    asked = BudgetPlan(trials=setting.trials, seeds=setting.seeds)
    if setting.budget is None:
        return asked
    path = out / "plan.json"
    if path.exists():
        kept = read_object(path)
        return BudgetPlan(**kept | {"cut": tuple(kept["cut"])})
    has_trials = setting.trials > 1
    steps = protocol.steps(setting.base, data, trial=False)
    trial_steps = protocol.steps(setting.base, data, trial=True) if has_trials else 0
    work = Work(arms=len(arms.configs), trial_steps=trial_steps, steps=steps, at_once=setting.at_once)
    probe = Job(
        config=str(_arm_file(out, setting.base.name)),
        overrides=(*overrides_of_jobs(setting.at_once), f"train.steps={min(PROBE_STEPS, steps)}"),
        out=out / "probe",
    )
    begun = time.perf_counter()
    if failed := run_all([probe], data, lock, at_once=1, fresh=True, desc="probe"):
        raise UserError(f"the base cannot be run: {failed[0]}")
    wall, facts = time.perf_counter() - begun, read_object(probe.out / "run.json")
    cost = Cost(fixed=max(wall - facts["seconds"], 0.0), step=facts["seconds"] / max(facts["steps"], 1))
    plan = fit(asked, work, cost, setting.budget, can_be_cut=protocol.can_be_cut and not setting.base.train.cold_passes)
    write_atomic(path, json.dumps(asdict(plan), indent=1) + "\n")
    return plan


def _of_share(arms: Arms, plan: BudgetPlan) -> Arms:
    """The arms that a share of a pass leaves anything of: one that ends with a pass of its own never comes to it."""
    if plan.share == 1:
        return arms
    gone = {name: c.train.cold_passes for name, c in arms.configs.items() if c.train.cold_passes}
    kept = {name: c for name, c in arms.configs.items() if name not in gone}
    return replace(
        arms, configs=kept, left_out=arms.left_out | dict.fromkeys(gone, "a share of a pass ends before its own")
    )


def _tuned(
    search: Search,
    name: str,
    plan: BudgetPlan,
    setting: Setting,
    protocol: BenchmarkProtocol,
    data: DataFolder,
    folder: Path,
    lock: Lock,
) -> dict[str, Any]:
    """The best trial of a method, as `tune` has it; without a search the method as it is."""
    if plan.trials <= 1:
        return {"overrides": [], "value": None, "trials": []}
    if plan.share < 1:
        steps = _cut(protocol.steps(setting.base, data, trial=True), plan)
        search = replace(search, overrides=(*search.overrides, f"train.steps={steps}"))
    return tune(replace(search, trials=plan.trials), name, data, folder, lock)


def _cut(steps: int, plan: BudgetPlan) -> int:
    return max(1, round(steps * plan.share))


def _jobs(
    setting: Setting,
    arms: Arms,
    protocol: BenchmarkProtocol,
    data: DataFolder,
    out: Path,
    plan: BudgetPlan,
    name: str,
    best: Sequence[str],
) -> list[Job]:
    """The reported runs of a method, one for each seed."""
    steps = (f"train.steps={_cut(protocol.steps(setting.base, data, trial=False), plan)}",) if plan.share < 1 else ()
    return [
        Job(
            config=str(_arm_file(out, name)),
            overrides=(*overrides_of_jobs(setting.at_once), *steps, *best, f"seed={seed}"),
            out=out / "runs" / f"{name}-{seed}",
        )
        for seed in range(1, plan.seeds + 1)
    ]


def _leak_test(protocol: BenchmarkProtocol, job: Job, data: DataFolder, place: Path, name: str) -> dict[str, Any]:
    """What an Outcome says of leaks, as it was found the first time."""
    path = place / "found" / f"{name}.json"
    if path.exists():
        return read_object(path)
    try:
        found = {"leak": protocol.leaked(job.load(), job.out, data, place)}
    except Preempted:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a method of one's own raises
        return {"untested": f"{type(error).__name__}: {error}".splitlines()[0]}
    make_folder(path.parent)
    write_atomic(path, json.dumps(found) + "\n")
    return found


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1].rpartition("\r")[2] if lines else "no output"
