"""`coldrank tune`."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from coldrank.cli.options import add_data, add_jobs, add_set, local_path
from coldrank.data.errors import UserError

if TYPE_CHECKING:
    from coldrank.data.batches import DataFolder
    from coldrank.experiments.tune import Search
    from coldrank.train.lock import Lock


def add_tune(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "tune",
        help="search config fields, with the same budget for every arm",
        description="Trains each arm on `train` at N settings and judges them on `valid` by their mean AUC, or "
        "--by; the test split is not read. A stream is judged by the periods that it scores before --set train.steps=N "
        "ends it. Trial 0 is the arm as it is. Writes OUT/tuned.json, for `coldrank train --arms ... --tuned OUT`, and "
        "tuned.md. A search that was cut off goes on.",
    )
    p.add_argument("--config", required=True, help="package.module of the arms, as coldrank.configs.kuairand")
    p.add_argument("--arms", required=True, metavar="A,B,...", help="arms of the config module")
    p.add_argument(
        "--vary",
        action="append",
        required=True,
        metavar="FIELD=VALUES",
        help="low..high (drawn log-uniformly) or a|b|c, e.g. --vary optim.dense.lr=1e-3..5e-3 --vary "
        "'model.dropout=.1|.2'",
    )
    p.add_argument("--trials", type=int, default=10, help="trials of each arm (default: 10)")
    p.add_argument("--seeds", type=int, default=1, help="seeds of each trial (default: 1)")
    p.add_argument(
        "--tasks", default="", metavar="A,B,...", help="tasks whose mean counts (default: all that have an AUC)"
    )
    p.add_argument("--cohort", default="all", metavar="A,B,...", help="cohorts that count, in the mean (default: all)")
    p.add_argument(
        "--by",
        default="auc",
        metavar="A,B,...",
        help="what a trial is judged by, the sum if several: auc (default); ne, which counts against it; of a "
        "two-tower model recall@5, ndcg@10_of_all and the like",
    )
    p.add_argument(
        "--sampler",
        choices=("random", "tpe"),
        default="random",
        help="random: the same settings for every arm (default); tpe: each arm's trials follow its earlier ones",
    )
    add_data(p)
    p.add_argument("--out", required=True, type=local_path, help="folder of the search")
    add_set(p)
    add_jobs(p)
    p.set_defaults(run=_tune)


def _tune(args: argparse.Namespace) -> None:
    try:
        from coldrank.experiments.tune import Field, Search, check_search
    except ModuleNotFoundError as error:
        raise UserError(f"needs {error.name}: pip install 'coldrank[tune]'") from None
    from coldrank.data.batches import DataFolder
    from coldrank.data.output import check_folder
    from coldrank.experiments.sweep import overrides_of_jobs, refuse_ranks
    from coldrank.train.lock import Lock

    for option in ("trials", "seeds", "jobs"):
        if getattr(args, option) < 1:
            raise UserError(f"--{option} {getattr(args, option)}: must be above 0")
    check_folder("--out", args.out)
    by = tuple(dict.fromkeys(args.by.split(",")))
    search = Search(
        module=args.config,
        fields=tuple(Field.parse(text) for text in args.vary),
        trials=args.trials,
        seeds=args.seeds,
        tasks=tuple(t for t in args.tasks.split(",") if t),
        cohort=args.cohort,
        by=by,
        sampler=args.sampler,
        overrides=(*overrides_of_jobs(args.jobs), *args.set),
        at_once=args.jobs,
    )
    arms = [arm for arm in args.arms.split(",") if arm]
    data = DataFolder.open(args.data)
    refuse_ranks()
    with Lock(args.out) as lock:
        check_search(search, arms, data)
        _tune_held(args, search, arms, data, lock)


def _tune_held(args: argparse.Namespace, search: "Search", arms: list[str], data: "DataFolder", lock: "Lock") -> None:
    """The search of every arm, and its result."""
    from tqdm import tqdm

    from coldrank.data.output import write_atomic
    from coldrank.experiments.tune import SIGNS, tune

    results = {arm: tune(search, arm, data, args.out, lock) for arm in arms}
    settings: dict[str, Any] = {
        "tasks": list(search.tasks),
        "cohort": search.cohort,
        "by": list(search.by),
        "vary": args.vary,
        "set": args.set,
    }
    settings |= {"trials": search.trials, "seeds": search.seeds, "sampler": search.sampler}
    lock.check()
    write_atomic(args.out / "tuned.json", json.dumps({"format": 1, **settings, "arms": results}, indent=1) + "\n")
    names = {metric: metric.upper() if metric in SIGNS else metric for metric in search.by}
    gains = " + ".join(name for metric, name in names.items() if SIGNS.get(metric, 1.0) > 0)
    judged = gains if "ne" not in names else f"{gains} - NE" if gains else "less NE"
    table = _table(results, judged)
    of = f"{judged} of {search.cohort}, mean over the tasks, percent."
    write_atomic(args.out / "tuned.md", f"# Search\n\n{of[0].upper()}{of[1:]}\n\n{table}\n")
    tqdm.write(f"\n{table}\n\n{args.out}: give it to `coldrank train --arms ... --tuned {args.out}`")


def _table(results: dict[str, Any], judged: str) -> str:
    """A line per arm and trial; the best of each arm marked."""
    from tabulate import tabulate

    body = []
    for arm, result in results.items():
        for number, trial in enumerate(result["trials"]):
            best = " *" if number == result["trial"] else ""
            value = "failed" if trial["value"] is None else f"{trial['value']:.3f}{best}"
            body.append([arm, number, " ".join(trial["overrides"]) or "as it is", value])
    return str(tabulate(body, headers=["arm", "trial", "fields", judged], tablefmt="github", disable_numparse=True))
