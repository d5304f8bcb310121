"""`coldrank train`."""

import argparse
import os
from typing import Any

from coldrank.cli.options import add_data, add_jobs, add_set, local_path
from coldrank.data.errors import UserError


def add_train(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "train",
        help="train a ranker and evaluate it",
        description="Trains an arm on prepared data, evaluates it on the test split and writes a run folder. "
        "On a run folder that holds a checkpoint, goes on where it stopped. "
        "With --arms, runs a whole experiment: every arm with every seed, each in OUT/ARM-SEED; what is done is "
        "skipped.",
    )
    p.add_argument(
        "--config",
        required=True,
        help="package.module:arm, package.module for its default arm, or the config.json of a run to repeat; "
        "with --arms the package.module",
    )
    add_data(p)
    p.add_argument("--out", required=True, type=local_path, help="run folder; with --arms the folder of all runs")
    add_set(p)
    p.add_argument(
        "--fresh",
        action="store_true",
        help="start over even if the run folder holds a checkpoint; not when torchrun or slurm starts a job again",
    )
    many = p.add_argument_group("many runs")
    many.add_argument("--arms", metavar="A,B,...", help="arms of the config module")
    many.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 1..N of every arm (default: 1)")
    many.add_argument(
        "--tuned", type=local_path, metavar="DIR", help="take each arm's best fields from this `coldrank tune` folder"
    )
    add_jobs(many)
    p.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> None:
    if args.arms:
        _train_arms(args)
    else:
        _train_one(args)


def _train_arms(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from coldrank.data.batches import DataFolder
    from coldrank.data.output import check_folder
    from coldrank.experiments.sweep import (
        Job,
        overrides_of_jobs,
        refuse_ranks,
        require_distinct,
        run_all,
        tuned_overrides,
    )
    from coldrank.train.lock import Lock

    arms = [arm for arm in args.arms.split(",") if arm]
    if ":" in args.config or args.config.endswith(".json"):
        raise UserError(f"--config {args.config}: with --arms, give the module alone, as in coldrank.configs.kuairand")
    if args.seeds < 1 or args.jobs < 1 or not arms:
        raise UserError(
            f"--arms {args.arms} --seeds {args.seeds} --jobs {args.jobs}: expected arms, and numbers above 0"
        )
    check_folder("--out", args.out)
    tuned = tuned_overrides(args.tuned, arms) if args.tuned else dict.fromkeys(arms, ())
    shared = overrides_of_jobs(args.jobs)
    jobs = [
        Job(
            config=f"{args.config}:{arm}",
            overrides=(*shared, *tuned[arm], *args.set, f"seed={seed}"),
            out=args.out / f"{arm}-{seed}",
        )
        for seed in range(1, args.seeds + 1)
        for arm in arms
    ]
    refuse_ranks()
    require_distinct(arms, [job.load() for job in jobs[: len(arms)]])
    data = DataFolder.open(args.data)
    with Lock(args.out) as lock:
        failed = run_all(jobs, data, lock, at_once=args.jobs, fresh=args.fresh, desc="runs")
    if failed:
        raise UserError(f"{len(failed)} of {len(jobs)} runs failed; the first: {failed[0]}")
    tqdm.write(f"{args.out}: {len(jobs)} runs; now `coldrank compare {args.out} --out {args.out}-comparison`")


def _train_one(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from coldrank.data.batches import DataFolder
    from coldrank.train.difference import from_base
    from coldrank.train.distributed.ranks import process_group
    from coldrank.train.evaluate import summary_table
    from coldrank.train.load import load
    from coldrank.train.trainer import train

    config = load(args.config, args.set)
    data = DataFolder.open(args.data)
    with process_group() as ranks:
        # A job that its scheduler starts again goes on, even if its command says to start over.
        fresh = args.fresh and not is_restart()
        rows = train(config, data, args.out, ranks, fresh=fresh, diff=from_base(args.config, config))
        if ranks.is_first:
            table = summary_table(rows) if rows else "(no period is scored yet)"
            tqdm.write(f"\n{table}\n\n{args.out}: run folder, all metrics in summary.json")


def is_restart() -> bool:
    """Whether torchrun or slurm has started this very job before."""
    return any(int(os.environ.get(name, "0")) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
