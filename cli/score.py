"""`coldrank score`."""

import argparse
from typing import Any

from coldrank.cli.options import data_path, local_path


def add_score(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "score",
        help="score Parquet files with an exported model",
        description="Scores every row of a Parquet file of samples, or of all in a folder, with the model of an "
        "export folder, which is first held against its digests. OUT gets the keys and labels that the input has, and "
        "prob_<task>, or pred_<task> of a task that gives no probability. Called again after it was cut off, goes on "
        "where it stopped.",
    )
    p.add_argument("--artifact", required=True, type=local_path, help="export folder written by `coldrank export`")
    p.add_argument(
        "--input",
        required=True,
        type=data_path,
        help="Parquet file with the columns that signature.json lists, or a folder of such files",
    )
    p.add_argument("--out", required=True, type=local_path, help="new Parquet file")
    p.set_defaults(run=_score)


def _score(args: argparse.Namespace) -> None:
    from coldrank.serving.score import score_file

    rows = score_file(args.artifact, args.input, args.out)
    print(f"{args.out}: {rows:,} rows")
