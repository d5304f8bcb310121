"""What the planted gates of the simulated log are worth for new users: the most that a model can gain from them.

    python benchmarks/simulated_gates.py --events 5000000
    python benchmarks/simulated_gates.py --events 250000 --gate-strength 2 --avc-scale 30 --stay-days 5

The AUC at AVC <= 10 of four scores on the same drawn labels: the true probability; the same with the gates closed,
which is what a model has that knows everything but does not know that new users react in another way; and both again
without what only a user's past can tell, which is what there is to know of a user at the first view.
"""

import argparse
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from coldrank.data.simulate.random import F32, normals, stream_keys
from coldrank.data.simulate.scores import TASKS, fit_intercepts, score_events, true_probabilities
from coldrank.data.simulate.timeline import Timeline, draw_timeline
from coldrank.data.simulate.world import (
    CATEGORY_SIZES,
    CATEGORY_STREAM,
    TASTE,
    USER_SD,
    VISIBLE_TASTE,
    Newness,
    Users,
    World,
    build_world,
    draw_users,
)
from coldrank.metrics.by_cohort import auc

NEW_USER_MAX_VIEWS = 10
# Weight of the sociability, which the follow count shows, in a user's bias.
SOCIABILITY_WEIGHT = 0.43


def visible(world: World, users: Users) -> Users:
    """The users as their file shows them: no part of taste and bias that only behaviour tells."""
    taste = np.zeros_like(users.taste)
    for column, size in enumerate(CATEGORY_SIZES):
        table = normals(stream_keys(world.seed, CATEGORY_STREAM, np.arange(size) + 1000 * column), TASTE)
        taste += table[users.categories[:, column]] / np.float32(len(CATEGORY_SIZES) ** 0.5)
    taste *= np.float32(VISIBLE_TASTE**0.5)
    bias = SOCIABILITY_WEIGHT * users.sociability[:, None] * np.asarray(USER_SD, dtype=np.float32)
    return replace(users, taste=taste, hidden=taste @ world.user_in, bias=bias)


class GateWorth(NamedTuple):
    """What the planted gates are worth."""

    views: int
    """Events drawn."""
    new: int
    """Events at AVC <= 10."""
    auc: dict[str, list[float]]
    """Score -> AUC per task, [S]."""


def measure(events: int, count: int, seed: int, newness: Newness | None = None) -> GateWorth:
    """The figures, from the first views of `count` users of a log of `events` events."""
    newness = newness or Newness()
    world = build_world(seed, events, days=30, newness=newness)
    closed = replace(world, gate_slope=np.zeros_like(world.gate_slope), newness=replace(newness, main_strength=0.0))
    intercepts = fit_intercepts(world)
    users = draw_users(world, np.arange(count))
    every = draw_timeline(users, world)
    new = every.avc <= NEW_USER_MAX_VIEWS
    timeline = Timeline(every.user[new], every.avc[new], every.time_ms[new])

    def probabilities(world: World, users: Users) -> F32:
        return true_probabilities(score_events(world, users, timeline), intercepts)

    seen = visible(world, users)
    scores = {
        "all known": probabilities(world, users),
        "gates closed": probabilities(closed, users),
        "first view": probabilities(world, seen),
        "first view, gates closed": probabilities(closed, seen),
    }
    true = scores["all known"]
    labels = np.random.default_rng(seed).random(true.shape) < true
    aucs = {name: [auc(y, p) for y, p in zip(labels.T, score.T, strict=True)] for name, score in scores.items()}
    return GateWorth(len(new), int(new.sum()), aucs)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=5_000_000, help="of the log: sets its catalogue")
    parser.add_argument("--users", type=int, default=8_000, help="whose first views are drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the log")
    usual = Newness()
    for field in ("gate_strength", "main_strength", "avc_scale", "stay_days"):
        parser.add_argument(
            f"--{field.replace('_', '-')}", type=float, default=getattr(usual, field), help="of the log"
        )
    args = parser.parse_args()
    newness = Newness(
        gate_strength=args.gate_strength,
        main_strength=args.main_strength,
        avc_scale=args.avc_scale,
        stay_days=args.stay_days,
    )
    worth = measure(args.events, args.users, args.seed, newness)
    print(f"{worth.new:,} of {worth.views:,} views at AVC <= {NEW_USER_MAX_VIEWS}; their AUC, %")
    rows = [[task, *(f"{100 * aucs[i]:.2f}" for aucs in worth.auc.values())] for i, task in enumerate(TASKS)]
    print(tabulate(rows, headers=["task", *worth.auc], tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
