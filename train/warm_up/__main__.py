"""`python -m coldrank.train.warm_up --config coldrank.configs.mwuf:movielens --data DATA --out OUT`; see docs/mwuf.md."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from coldrank.train.config import load
from coldrank.train.data.batches import DataFolder
from coldrank.train.output import make_folder
from coldrank.train.warm_up.experiment import METHODS, experiment, read
from coldrank.train.warm_up.protocol import Protocol
from coldrank.train.warm_up.table import tables


def main() -> None:
    """Runs what is left to run, model after model, and writes the tables."""
    parser = argparse.ArgumentParser(description="Warm-up methods for new items, on a model of the old ones.")
    parser.add_argument("--config", required=True, help="arm: inputs, sizes, rates; its model.kind is --models'")
    parser.add_argument("--data", required=True, type=Path, help="folder written by coldrank prepare")
    parser.add_argument("--out", required=True, type=Path, help="folder for splits, results.jsonl and tables.md")
    parser.add_argument("--models", default="deepfm,wide_deep,dcn,ranker")
    parser.add_argument("--methods", default=";".join(METHODS), help="names, separated by semicolons")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--old-above", type=int, default=200, help="old items have more events")
    parser.add_argument("--new-from", type=int, default=60, help="new items have at least so many")
    parser.add_argument("--k", type=int, default=20, help="events of a new item in each warm set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    make_folder(args.out)
    data, config = DataFolder.open(args.data), load(args.config, args.set)
    protocol = Protocol(old_above=args.old_above, new_from=args.new_from, k=args.k)
    for kind in args.models.split(","):
        model = replace(config, name=kind, model=replace(config.model, kind=kind))
        experiment(model, data, args.out, protocol, args.seeds, args.methods.split(";"))
        (args.out / "tables.md").write_text(tables(read(args.out / "results.jsonl")))
    print(tables(read(args.out / "results.jsonl")))


if __name__ == "__main__":
    main()
