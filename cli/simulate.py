"""`coldrank simulate`."""

import argparse
import dataclasses
import json
from typing import Any

from coldrank.cli.options import local_path


def add_simulate(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "simulate",
        help="write a simulated short-video log whose true probabilities are known",
        description="Writes a short-video log in KuaiRand's file layout and columns, with the true probability of "
        "every label in the columns true_<task>; `coldrank prepare kuairand --data OUT` reads it. simulation.json says "
        "what the best AUC is, with and without knowing how new users differ. "
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
        help="how differently new users react to what they see: 0 (like all others) to 4; above 1 some of it is the "
        "opposite (default: 1)",
    )
    p.add_argument(
        "--main-strength",
        type=float,
        default=0.0,
        help="how far new users go by the video rather than by themselves, 0 to 4 (default: 0)",
    )
    p.add_argument(
        "--avc-scale",
        type=float,
        default=10.0,
        metavar="VIEWS",
        help="views in which the newness of a user falls by e, exp(-AVC / VIEWS) (default: 10)",
    )
    of_new_users = p.add_mutually_exclusive_group()
    of_new_users.add_argument(
        "--stay-days",
        type=float,
        default=30.0,
        metavar="D",
        help="mean days from a user's first to the last; shorter: more events of new users (default: 30)",
    )
    of_new_users.add_argument(
        "--new-user-share",
        type=float,
        metavar="S",
        help="share of the events that are to be of new users (AVC <= 10), as 0.2; chooses the days they stay",
    )
    p.set_defaults(run=_simulate)


def _simulate(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from coldrank.data.simulate.share import with_new_user_share
    from coldrank.data.simulate.simulate import Simulation, simulate
    from coldrank.data.simulate.world import Newness

    newness = Newness(
        gate_strength=args.gate_strength,
        main_strength=args.main_strength,
        avc_scale=args.avc_scale,
        stay_days=args.stay_days,
    )
    config = Simulation(events=args.events, seed=args.seed, days=args.days, newness=newness, format=args.format)
    if (share := args.new_user_share) is not None:
        newness = with_new_user_share(newness, share, seed=args.seed, events=args.events, days=args.days)
        config = dataclasses.replace(config, newness=newness)
    with tqdm(total=config.events, unit=" events", unit_scale=True, delay=0.2) as bar:
        simulate(config, args.out, bar.update)
    print(what_there_is_to_gain(json.loads((args.out / "simulation.json").read_text())))


def what_there_is_to_gain(said: dict[str, Any]) -> str:
    """What a simulation.json says of new users, as lines to read."""
    from tabulate import tabulate

    aucs = said["auc"]["new_user"].items()
    rows = [[t, a["best"], a["gates_unknown"], a["best"] - a["gates_unknown"]] for t, a in aucs]
    headers = ["AUC % of new users", "best there is", "without knowing how they differ", "to gain"]
    return f"{100 * said['new_user_share']:.0f}% of the events are of new users\n\n" + tabulate(
        rows, headers, floatfmt=".2f"
    )
