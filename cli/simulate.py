"""`coldrank simulate`."""

import argparse
from typing import Any

from coldrank.cli.options import local_path


def add_simulate(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "simulate",
        help="write a simulated short-video log whose true probabilities are known",
        description="Writes a short-video log in KuaiRand's file layout and columns, with the true probability of "
        "every label in the columns true_<task>; `coldrank prepare kuairand --data OUT` reads it. "
        "The log ends on 2022-05-05. Memory doesn't grow with the number of events.",
    )
    p.add_argument("--events", type=int, required=True, help="rows of the log")
    p.add_argument("--out", type=local_path, required=True, help="new folder for the log")
    p.add_argument("--seed", type=int, default=0, help="same seed, same log (default: 0)")
    p.add_argument(
        "--days", type=int, default=30, help="days of the log; shorter logs hold more new users (default: 30)"
    )
    p.add_argument(
        "--format",
        choices=("csv", "parquet"),
        default="csv",
        help="format of the log; feature files are always CSV (default: csv)",
    )
    p.add_argument(
        "--gate-strength",
        type=float,
        default=1.0,
        help="how differently new users react to what they see: 0 (like all others) to 1 (default: 1)",
    )
    p.set_defaults(run=_simulate)


def _simulate(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from coldrank.data.simulate.simulate import Simulation, simulate

    config = Simulation(
        events=args.events, seed=args.seed, days=args.days, gate_strength=args.gate_strength, format=args.format
    )
    with tqdm(total=config.events, unit=" events", unit_scale=True, delay=0.2) as bar:
        simulate(config, args.out, bar.update)
