"""How long users have to stay for a wanted share of the events to be of new users."""

from dataclasses import replace

import numpy as np

from coldrank.data.cohorts import CohortConfig
from coldrank.data.errors import UserError
from coldrank.data.simulate.timeline import views_per_day
from coldrank.data.simulate.world import Newness, build_world, draw_users

STAY_DAYS = (0.1, 1000.0)
_PILOT_USERS = 4_000
_HALVINGS = 20


def with_new_user_share(newness: Newness, share: float, *, seed: int, events: int, days: int) -> Newness:
    """`newness` with the `stay_days` at which about `share` of the events are at AVC <= 10, by the first users of the
    log. Raises UserError for a share that no length of stay gives."""

    def found(stay_days: float) -> float:
        world = build_world(seed, events, days, replace(newness, stay_days=stay_days))
        views = views_per_day(draw_users(world, np.arange(_PILOT_USERS)), world).sum(axis=1)
        return float(np.minimum(views, CohortConfig().new_user_max_views + 1).sum() / views.sum())

    short, long = STAY_DAYS
    highest, lowest = found(short), found(long)
    if not lowest <= share <= highest:
        raise UserError(
            f"new_user_share is {share}; with days={days} it must lie between {lowest:.3f} and {highest:.3f}"
        )
    for _ in range(_HALVINGS):
        middle = (short * long) ** 0.5
        short, long = (middle, long) if found(middle) > share else (short, middle)
    return replace(newness, stay_days=round((short * long) ** 0.5, 3))
