"""`coldrank train` and `coldrank evaluate`."""

import argparse
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from coldrank.train.errors import UserError

# Importing torch and TorchRec takes seconds: only the commands that need them do.
if TYPE_CHECKING:
    from coldrank.train.config import RunConfig


def add_train(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "train",
        help="train a ranker and evaluate it",
        description="Trains an arm on prepared data, evaluates it on the test split and writes a run folder. "
        "On a run folder that holds a checkpoint, goes on where it stopped.",
    )
    p.add_argument("--config", required=True, help="package.module:arm, or the config.json of a run to repeat")
    p.add_argument("--data", required=True, type=Path, help="folder written by `coldrank prepare`")
    p.add_argument("--out", required=True, type=Path, help="run folder")
    _add_set(p)
    p.add_argument("--fresh", action="store_true", help="start over even if the run folder holds a checkpoint")
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
    p.add_argument("--data", required=True, type=Path, help="folder written by `coldrank prepare`")
    p.add_argument("--split", default="test", help="split to score (default: test)")
    p.add_argument("--predictions", type=Path, help="write the scored samples to this Parquet file")
    _add_set(p)
    p.set_defaults(run=_evaluate)


def _add_set(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change a config field, e.g. train.steps=200"
    )


def _train(args: argparse.Namespace) -> None:
    from coldrank.train.config import load
    from coldrank.train.data.batches import DataFolder
    from coldrank.train.distributed import process_group
    from coldrank.train.evaluate import summary_table
    from coldrank.train.trainer import train

    config = load(args.config, args.set)
    data = DataFolder.open(args.data)
    with process_group() as ranks:
        rows = train(config, data, args.out, ranks, fresh=args.fresh, diff=_diff(args.config, config))
        if ranks.is_first:
            tqdm.write(f"\n{summary_table(rows)}\n\n{args.out}: run folder, all metrics in summary.json")


def _diff(source: str, config: "RunConfig") -> str:
    """Difference to the arm `base` of the same module; to nothing when a config.json is repeated."""
    from coldrank.train.config import difference

    if source.endswith(".json"):
        return f"repeats {source}\n"
    base = getattr(importlib.import_module(source.partition(":")[0]), "base", None)
    return difference(config, base()) if base else ""


def _evaluate(args: argparse.Namespace) -> None:
    from coldrank.train import checkpoint
    from coldrank.train.config import load
    from coldrank.train.data.batches import DataFolder
    from coldrank.train.distributed import process_group
    from coldrank.train.evaluate import summary_table
    from coldrank.train.run_folder import RunFolder
    from coldrank.train.trainer import build, evaluate

    config = load(str(args.run_folder / "config.json"), args.set)
    checkpoints = args.run_folder / "checkpoints"
    if not checkpoint.steps(checkpoints):
        raise UserError(f"{args.run_folder}: no checkpoint in it")
    data = DataFolder.open(args.data)
    if args.split in config.data.fit:
        tqdm.write(
            f"{args.run_folder}: was trained on split {args.split!r}; its metrics there are not those of new data"
        )
    with process_group() as ranks:
        run = build(config, data, ranks)
        progress = checkpoint.load(checkpoints, run.state, ranks)
        rows = evaluate(run, args.split, progress.step, args.predictions)
        if ranks.is_first:
            folder = RunFolder(args.run_folder)
            folder.log_evaluation(rows)
            folder.close()
            tqdm.write(f"\n{summary_table(rows)}")
