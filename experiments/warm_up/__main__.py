"""The command of the warm-up experiments; see docs/mwuf.md.

`python -m coldrank.experiments.warm_up --config coldrank.configs.mwuf:movielens --data DATA --out OUT`
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from coldrank.data.batches import DataFolder
from coldrank.data.errors import UserError, report
from coldrank.data.output import make_folder
from coldrank.experiments.warm_up.check import check_folder, roles_of
from coldrank.experiments.warm_up.experiment import METHODS, experiment, read
from coldrank.experiments.warm_up.protocol import Protocol
from coldrank.experiments.warm_up.table import tables
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.load import from_dict, load
from coldrank.train.overrides import override_all


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is left to run, model after model, and writes the tables. 0 is success; a mistake is one line and 2."""
    parser = argparse.ArgumentParser(description="Warm-up methods for new items, on a model of the old ones.")
    parser.add_argument("--config", required=True, help="arm: inputs, sizes, rates; its model.kind is --models'")
    parser.add_argument("--data", required=True, type=Path, help="folder written by coldrank prepare")
    parser.add_argument("--out", required=True, type=Path, help="folder for splits, results.jsonl and tables.md")
    parser.add_argument("--models", default="deepfm,wide_deep,dcn,ranker", help="kinds; fm, pnn and afn as well")
    parser.add_argument("--methods", default=";".join(METHODS), help="names, separated by semicolons")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--old-above", type=int, default=200, help="old items have more events")
    parser.add_argument("--new-from", type=int, default=60, help="new items have at least so many")
    parser.add_argument("--k", type=int, default=20, help="events of a new item in each warm set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        run(args)
    except (UserError, OSError) as error:
        report(f"warm_up: {error}")
        return 2
    return 0


def run(args: argparse.Namespace) -> None:
    """Checks all that can be checked, then runs. Raises UserError."""
    data, config = DataFolder.open(args.data), load(args.config, args.set)
    methods = args.methods.split(";")
    for name in methods:
        if name not in METHODS:
            raise UserError(f"--methods {name!r}: there are {'; '.join(METHODS)}")
    for field in ("seeds", "k"):
        if getattr(args, field) < 1:
            raise UserError(f"--{field} {getattr(args, field)}: must be above 0")
    protocol = Protocol(old_above=args.old_above, new_from=args.new_from, k=args.k)
    models = [_of_kind(config, kind) for kind in args.models.split(",")]
    make_folder(args.out)
    check_folder(args.out, config, data, protocol)
    for model in models:
        experiment(model, data, args.out, protocol, args.seeds, methods)
        (args.out / "tables.md").write_text(tables(read(args.out / "results.jsonl")))
    print(tables(read(args.out / "results.jsonl")))


def _of_kind(config: RunConfig, kind: str) -> RunConfig:
    values = to_dict(replace(config, name=kind))
    model = from_dict(override_all(values, [f"model={kind}"]), f"--models {kind}")
    roles_of(model, validate(model))
    return model


if __name__ == "__main__":
    sys.exit(main())
