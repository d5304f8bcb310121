"""What there is to gain in a simulated log by knowing that new users react in another way."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coldrank.data.cohorts import CohortConfig
from coldrank.data.simulate.random import F32
from coldrank.data.simulate.scores import TASKS, fit_intercepts, score_events, true_probabilities
from coldrank.data.simulate.timeline import Timeline
from coldrank.data.simulate.world import Users, World

Json = dict[str, dict[str, dict[str, float]]]
# Events that are looked at of a cohort, about.
_LOOKED = 100_000
# Of a cohort of new users, which holds few of the events.
_OFTENER = 10


class Headroom:
    """Takes the events block by block."""

    def __init__(self, world: World, events: int) -> None:
        """events: of the log."""
        plain = replace(world.newness, gate_strength=0.0, main_strength=0.0)
        self._worlds = (world, replace(world, gate_slope=np.zeros_like(world.gate_slope), newness=plain))
        self._intercepts = fit_intercepts(world)
        step = max(1, events // _LOOKED)
        self._steps = {"all": step, "new_user": max(1, step // _OFTENER)}
        self._found: dict[str, list[list[F32]]] = {cohort: [] for cohort in self._steps}
        self._events = {cohort: 0 for cohort in self._steps}

    def add(self, users: Users, timeline: Timeline) -> None:
        """Takes the events of a block."""
        new = timeline.avc <= CohortConfig().new_user_max_views
        for cohort, mask in (("all", np.ones_like(new)), ("new_user", new)):
            rows = np.flatnonzero(mask)
            # Every so many of the log, whatever the blocks.
            first = -self._events[cohort] % self._steps[cohort]
            self._events[cohort] += len(rows)
            if len(rows := rows[first :: self._steps[cohort]]):
                some = Timeline(timeline.user[rows], timeline.avc[rows], timeline.time_ms[rows])
                scored = (score_events(world, users, some) for world in self._worlds)
                self._found[cohort].append([true_probabilities(s, self._intercepts) for s in scored])

    @property
    def new_user_share(self) -> float:
        """Share of the events whose user is new."""
        return self._events["new_user"] / self._events["all"]

    def to_json(self) -> Json:
        """Cohort -> task -> `best`, the AUC in percent of the true probability, and `gates_unknown`, that of one that
        knows all but how new users are different, but for their other rates. Expected values over the labels."""
        figures: Json = {}
        for cohort, blocks in self._found.items():
            true, plain = (np.concatenate([b[i] for b in blocks]) for i in (0, 1))
            figures[cohort] = {
                task: {
                    "best": round(100 * expected_auc(true[:, i], true[:, i]), 2),
                    "gates_unknown": round(100 * expected_auc(plain[:, i], true[:, i]), 2),
                }
                for i, task in enumerate(TASKS)
            }
        return figures


def expected_auc(scores: F32, true: F32) -> float:
    """AUC of scores, float32 [n], where each label is 1 with probability `true`, float32 [n]: of all pairs, weighted by
    the chance that one is positive and the other not. Ties count half."""
    weights: NDArray[np.float64] = true.astype(np.float64)
    _, rank = np.unique(scores, return_inverse=True)
    positive, negative = (np.bincount(rank, w) for w in (weights, 1 - weights))
    # A row is no pair with itself.
    own = np.bincount(rank, weights * (1 - weights))
    below = np.cumsum(negative) - negative
    pairs = weights.sum() * (1 - weights).sum() - own.sum()
    return float((positive * below + (positive * negative - own) / 2).sum() / pairs)
