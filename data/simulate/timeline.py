"""When users come: the times of a block of users' events, and the view counts before them.

Legend: U users, n events of a block.
"""

from dataclasses import dataclass

import numpy as np

from coldrank.data.simulate.random import I64, child_keys, uniforms
from coldrank.data.simulate.world import Users, World, event_keys

# Share of events by local hour in the KuaiRand-Pure standard log, in thousandths.
HOUR_SHARES = (41, 25, 16, 10, 8, 9, 16, 25, 32, 39, 44, 51, 57, 56, 51, 51, 55, 59, 57, 54, 57, 60, 65, 62)

# A user's days. KuaiRand-Pure keeps only the views of its pool of videos (1.9 a user-day), so the level is our choice,
# made for 5-8% of events at AVC <= 10 in 30 days; the geometric form is the log's (mean 1.92, standard deviation 1.58).
MEDIAN_VIEWS_PER_DAY = 12.0
VIEWS_SD = 0.7
MAX_VIEWS_PER_DAY = 300
SESSION_GAP_S = 40.0
DAY_MS = 86_400_000
# New users view less a day (POSO, Fig. 1a).
NEW_USER_VIEWS = -0.45


@dataclass(frozen=True, slots=True)
class Timeline:
    """The n events of a block of users, sorted by user and time."""

    user: I64
    """The user's row in `Users`, int64 [n]."""
    avc: I64
    """The user's accumulated view count before the event, int64 [n]."""
    time_ms: I64
    """Milliseconds since the log's first midnight, int64 [n]."""

    def head(self, count: int) -> "Timeline":
        """The first `count` events."""
        return Timeline(self.user[:count], self.avc[:count], self.time_ms[:count])


def views_per_day(users: Users, world: World) -> I64:
    """Views of each user on each day, int64 [U, days]."""
    days, newness = world.days, world.newness
    stay, often = uniforms(child_keys(users.keys, np.full(len(users.ids), 1 << 40)), 2)
    last_day = users.first_day - np.log(stay) * newness.stay_days
    level = MEDIAN_VIEWS_PER_DAY * np.exp(VIEWS_SD * users.activity)
    come = 0.35 + 0.6 * often
    counts = np.zeros((len(users.ids), days), dtype=np.int64)
    avc = np.zeros(len(users.ids), dtype=np.int64)
    for day in range(days):
        today, amount = uniforms(child_keys(users.keys, np.full(len(users.ids), (1 << 41) + day)), 2)
        here = (day >= users.first_day) & (day <= last_day) & ((today < come) | (day == users.first_day))
        mean = 1 + level * (1 + NEW_USER_VIEWS * newness.of(avc))
        views = np.minimum(1 + np.floor(np.log(amount) / np.log1p(-1 / mean)), MAX_VIEWS_PER_DAY)
        counts[:, day] = np.where(here, views, 0)
        avc += counts[:, day]
    return counts


def draw_timeline(users: Users, world: World) -> Timeline:
    """All events of the users.

    A day's views are one sitting. What would pass midnight goes on in the early hours of the same day.
    """
    days = world.days
    counts = views_per_day(users, world)
    session = np.flatnonzero(counts.ravel())
    sizes = counts.ravel()[session]
    of_session = np.repeat(np.arange(len(session)), sizes)
    user, day = session[of_session] // days, session[of_session] % days
    starts = np.cumsum(sizes) - sizes
    first_of_user = np.cumsum(counts.sum(axis=1)) - counts.sum(axis=1)
    position = np.arange(len(user)) - first_of_user[user]
    gap_draw, start_draw = uniforms(event_keys(users, user, position + (1 << 43)), 2)
    # Whole milliseconds, so that the sums don't depend on where in the block a user stands.
    elapsed = np.cumsum((-1000 * SESSION_GAP_S * np.log(gap_draw)).astype(np.int64))
    elapsed -= elapsed[starts][of_session]
    hours = np.interp(start_draw[starts], np.cumsum((0, *HOUR_SHARES)) / sum(HOUR_SHARES), np.arange(25))
    in_day = (elapsed + (3_600_000 * hours).astype(np.int64)[of_session]) % DAY_MS
    time_ms = day * DAY_MS + in_day
    order = np.lexsort((time_ms, user))
    return Timeline(user, position, time_ms[order])
