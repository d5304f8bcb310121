"""`coldrank train` and `coldrank evaluate`."""

import argparse
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from coldrank.data.errors import UserError
from coldrank.data.output import check_file, check_folder

# Importing torch and TorchRec takes seconds: only the commands that need them do.
if TYPE_CHECKING:
    from coldrank.train.config import RunConfig


def add_train(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "train",
        help="train a ranker and evaluate it",
        description="Trains an arm on prepared data, evaluates it on the test split and writes a run folder. "
        "On a run folder that holds a checkpoint, goes on where it stopped. "
        "With --arms, runs a whole experiment: every arm with every seed, each in OUT/ARM-SEED; what is done is skipped.",
    )
    p.add_argument(
        "--config",
        required=True,
        help="package.module:arm, package.module for its default arm, or the config.json of a run to repeat; "
        "with --arms the package.module",
    )
    add_data(p)
    p.add_argument("--out", required=True, type=Path, help="run folder; with --arms the folder of all runs")
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
        "--tuned", type=Path, metavar="DIR", help="take each arm's best fields from this `coldrank tune` folder"
    )
    add_jobs(many)
    p.set_defaults(run=_train)


def add_evaluate(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "evaluate",
        help="score a split with a trained run and print its metrics",
        description="Loads the last checkpoint of a run, scores a split and prints AUC per task and cohort; "
        "all metrics go into RUN/summary.json and metrics.jsonl.",
    )
    p.add_argument("--run", required=True, type=Path, dest="run_folder", help="run folder written by `coldrank train`")
    add_data(p)
    p.add_argument("--split", default="test", help="split to score (default: test)")
    p.add_argument("--predictions", type=Path, help="write the scored samples to this Parquet file")
    add_set(p)
    p.set_defaults(run=_evaluate)


def add_data(p: argparse.ArgumentParser) -> None:
    """Adds --data."""
    p.add_argument("--data", required=True, type=Path, help="folder written by `coldrank prepare`")


def add_set(p: argparse.ArgumentParser) -> None:
    """Adds --set."""
    p.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="change config fields, e.g. --set train.steps=200 seed=2",
    )


def add_jobs(p: Any) -> None:
    """Adds --jobs to a parser or group."""
    p.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs side by side, the cores shared out (default: 1)"
    )


def _train(args: argparse.Namespace) -> None:
    if args.arms:
        _train_arms(args)
    else:
        _train_one(args)


def _train_arms(args: argparse.Namespace) -> None:
    from coldrank.data.batches import DataFolder
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
    from coldrank.data.batches import DataFolder
    from coldrank.train.distributed.ranks import process_group
    from coldrank.train.evaluate import summary_table
    from coldrank.train.load import load
    from coldrank.train.trainer import train

    config = load(args.config, args.set)
    data = DataFolder.open(args.data)
    with process_group() as ranks:
        # A job that its scheduler starts again goes on, even if its command says to start over.
        fresh = args.fresh and not is_restart()
        rows = train(config, data, args.out, ranks, fresh=fresh, diff=_diff(args.config, config))
        if ranks.is_first:
            table = summary_table(rows) if rows else "(no period is scored yet)"
            tqdm.write(f"\n{table}\n\n{args.out}: run folder, all metrics in summary.json")


def is_restart() -> bool:
    """Whether torchrun or slurm has started this very job before."""
    return any(int(os.environ.get(name, "0")) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def _diff(source: str, config: "RunConfig") -> str:
    """Difference to the arm `base` of the same module, if it has one; to nothing when a config.json is repeated."""
    from coldrank.train.arms import find_arm
    from coldrank.train.config import RunConfig
    from coldrank.train.difference import difference
    from coldrank.train.load import arms

    if source.endswith(".json"):
        return f"repeats {source}\n"
    module = source.partition(":")[0]
    if "base" not in arms(importlib.import_module(module)):
        return ""
    try:
        return difference(config, find_arm(f"{module}:base", RunConfig))
    except UserError as error:  # the arm has no need of it
        return f"no base to compare with: {error}\n"


def _evaluate(args: argparse.Namespace) -> None:
    from coldrank.data.batches import DataFolder
    from coldrank.train import checkpoint
    from coldrank.train.distributed.ranks import process_group
    from coldrank.train.evaluate import summary_table
    from coldrank.train.load import load
    from coldrank.train.lock import held
    from coldrank.train.run import build
    from coldrank.train.run_folder import RunFolder
    from coldrank.train.trainer import evaluate

    check_folder("--run", args.run_folder)  # its summary.json is written
    if args.predictions is not None:
        check_file("--predictions", args.predictions)
    config = load(str(args.run_folder / "config.json"), args.set)
    checkpoints = args.run_folder / "checkpoints"
    if not checkpoint.steps(checkpoints):
        raise UserError(f"{args.run_folder}: no checkpoint in it")
    data = DataFolder.open(args.data)
    if args.split in config.data.fit or config.train.mode == "periods":
        tqdm.write(
            f"{args.run_folder}: was trained on split {args.split!r}; its metrics there are not those of new data"
        )
    with process_group() as ranks, held(args.run_folder, ranks) as lock:
        run, folder = build(config, data, ranks), RunFolder(args.run_folder, lock.lock)
        progress = checkpoint.load(checkpoints, run.state, {}, ranks)
        rows = evaluate(run, args.split, progress.step, args.predictions, folder.require_lock)
        if ranks.is_first:
            folder.log_evaluation(rows)
            folder.close()
            tqdm.write(f"\n{summary_table(rows)}")
