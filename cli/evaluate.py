"""`coldrank evaluate`."""

import argparse
from typing import Any

from coldrank.cli.options import add_data, add_set, local_path
from coldrank.data.errors import UserError


def add_evaluate(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "evaluate",
        help="score a split with a trained run and print its metrics",
        description="Loads the last checkpoint of a run, scores a split and prints AUC per task and cohort; "
        "all metrics go into RUN/summary.json and metrics.jsonl.",
    )
    p.add_argument(
        "--run", required=True, type=local_path, dest="run_folder", help="run folder written by `coldrank train`"
    )
    add_data(p)
    p.add_argument("--split", default="test", help="split to score (default: test)")
    p.add_argument("--predictions", type=local_path, help="write the scored samples to this Parquet file")
    add_set(p)
    p.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from coldrank.data.batches import DataFolder
    from coldrank.data.output import check_file, check_folder
    from coldrank.train import checkpoint
    from coldrank.train.distributed.ranks import process_group
    from coldrank.train.evaluate import evaluate, summary_table
    from coldrank.train.gates import ADVICE, unmoved
    from coldrank.train.load import load
    from coldrank.train.lock import held
    from coldrank.train.run import build
    from coldrank.train.run_folder import RunFolder

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
        progress = run.load(checkpoints, {})
        rows = evaluate(run, args.split, progress.step, args.predictions, folder.require_lock)
        if ranks.is_first:
            folder.log_evaluation(rows)
            folder.close()
            tqdm.write(f"\n{summary_table(rows)}")
            if told := unmoved(rows):
                tqdm.write(f"\n{args.run_folder}: {told}; {ADVICE}")
