"""What users see and how likely they are to react: videos, scores and true probabilities of a block's events.

Play time comes first and the signals follow from it, as in KuaiRand, where click is play_time >= min(duration, 7 s),
long_view is play_time >= min(duration, 18 s) and finish is play_time >= duration. So the three are nested, and with c,
l, f the three scores P(click) = s(c), P(long_view) = s(c) s(l), P(finish) = s(c) s(l) s(f), where a step whose two
thresholds are equal has probability 1.
"""

from dataclasses import dataclass

import numpy as np

from coldrank.data.simulate.random import F32, I64, uniforms
from coldrank.data.simulate.timeline import DAY_MS, Timeline, draw_timeline
from coldrank.data.simulate.world import (
    HIDDEN,
    SCORES,
    TASTE,
    Users,
    Videos,
    World,
    draw_users,
    draw_videos,
    event_keys,
    shown_videos,
)

TASKS = ("click", "long_view", "finish_view", "like", "follow")
# Rates of the KuaiRand-Pure standard log (4/25-5/05).
TARGET_RATES = (0.4424, 0.3111, 0.1522, 0.0172, 0.00134)
CLICK_MS, LONG_VIEW_MS = 7_000, 18_000
PILOT_USERS, PILOT_EVENTS = 2_000, 30_000

# Shares of the tabs in that log (1, 0, 4, 6, 2, and the rest as 5), and the distance of each tab's logit of click and
# of long_view given click from tab 1's.
TABS = np.array([1, 0, 4, 6, 2, 5])
TAB_SHARES = (0.757, 0.089, 0.059, 0.052, 0.028, 0.015)
TAB_CLICK = np.array([0.0, -2.4, 0.4, -1.8, -0.1, -1.3], dtype=np.float32)
TAB_LONG_VIEW = np.array([0.0, -1.2, 0.3, -0.8, 0.2, -0.3], dtype=np.float32)
# logit of like after: no click, click, long_view, finish (rates .005, .024, .027, .044); follow likewise (.0003, .002,
# .0023, .0035).
LIKE_STEP = (0.0, 1.2, 1.4, 1.8)
FOLLOW_STEP = (0.0, 1.4, 1.5, 1.9)
FOLLOW_AFTER_LIKE = 1.5

# New users (POSO, Fig. 1a) have less patience on long videos, finish more and like more; fades with their newness.
NEW_USER_SHIFT = (0.0, 0.0, 0.5, 0.8, 0.5)
NEW_USER_LENGTH_SLOPE = (-0.35, -0.15, -0.15, 0.0, 0.0)  # per unit of ln(duration / 40 s)


@dataclass(frozen=True, slots=True)
class ScoredEvents:
    """The n events of a block with their scores."""

    timeline: Timeline
    """Who came when."""
    videos: Videos
    """The videos that the block shows."""
    video: I64
    """The event's row in `videos`, int64 [n]."""
    tab: I64
    """Index into TABS, int64 [n]."""
    scores: F32
    """Scores without intercepts, float32 [n, S]."""
    thresholds: I64
    """Play time in ms that makes a click, a long_view and a finish, int64 [n, 3]."""
    new_user: F32
    """How new the user is, float32 [n]: 1 at his first view."""
    draws: list[F32]
    """Eight uniform draws, float32 [n] each, for what the user does."""


def score_events(world: World, users: Users, timeline: Timeline) -> ScoredEvents:
    """Shows a video for every event and scores it."""
    draws = uniforms(event_keys(users, timeline.user, timeline.avc), 11)
    shown = shown_videos(world, timeline.time_ms // DAY_MS, draws[0], draws[1])
    ids, video = np.unique(shown, return_inverse=True)
    videos = draw_videos(world, ids)
    tab = np.searchsorted(np.cumsum(TAB_SHARES)[:-1], draws[2])
    scores = _scores(world, users, videos, timeline, video)
    duration = videos.duration_ms[video]
    length = np.log(duration.astype(np.float32) / np.float32(1000))
    scores[:, 0] += TAB_CLICK[tab]
    scores[:, 1] += TAB_LONG_VIEW[tab]
    # From the log's rates by duration: long_view given click is easy when its threshold is near 7 s, and finish falls
    # by 1.1 per e-fold.
    scores[:, 1] += np.float32(1.2) * np.clip(1 - (length - np.log(7.0)) / np.log(18 / 7), 0, 1).astype(np.float32)
    scores[:, 2] -= np.float32(1.12) * (length - np.float32(np.log(60)))
    new = world.newness.of(timeline.avc)
    scores += new[:, None] * np.asarray(NEW_USER_SHIFT, dtype=np.float32)
    slope = np.asarray(NEW_USER_LENGTH_SLOPE, dtype=np.float32)
    scores += (new * (length - np.float32(np.log(40))))[:, None] * slope
    thresholds = np.stack([np.minimum(duration, CLICK_MS), np.minimum(duration, LONG_VIEW_MS), duration], axis=1)
    return ScoredEvents(timeline, videos, video, tab, scores, thresholds, new, draws[3:])


def _scores(world: World, users: Users, videos: Videos, timeline: Timeline, video: I64) -> F32:
    """(1 - m e) bias_u + (1 + m e) bias_v + sum_h out_h gate_h(AVC) unit_h, float32 [n, S], in the form of Eq. 11.

    The units are products of taste and rectified sums. video: row in `videos`, int64 [n].
    """
    user = timeline.user
    units = np.empty((len(user), HIDDEN), dtype=np.float32)
    np.multiply(users.taste[user], videos.factors[video], out=units[:, :TASTE])
    np.maximum(users.hidden[user] + videos.hidden[video], 0, out=units[:, TASTE:])
    units[:, TASTE:] -= np.float32(1 / np.sqrt(2 * np.pi))  # the mean of a rectified standard normal
    new = world.newness.of(timeline.avc)
    # sum_h out_h (1 + slope_h e) unit_h in one product: the plain part and the part that e multiplies.
    both = units @ np.concatenate([world.out, world.out * world.gate_slope[:, None]], axis=1)
    gated: F32 = both[:, :SCORES] + new[:, None] * both[:, SCORES:]
    gated += users.bias[user]
    gated += videos.bias[video]
    if strength := np.float32(world.newness.main_strength):
        gated += strength * new[:, None] * (videos.bias[video] - users.bias[user])
    return gated


def _sigmoid(logit: F32) -> F32:
    return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float32)


def true_probabilities(scored: ScoredEvents, intercepts: F32) -> F32:
    """P(task = 1 | all latents, AVC), float32 [n, S], tasks as in TASKS. intercepts: float32 [S].

    Like and follow are summed over what may have happened before them.
    """
    steps = _sigmoid(scored.scores[:, :3] + intercepts[:3])
    same = scored.thresholds[:, 1:] == scored.thresholds[:, :-1]
    steps[:, 1:][same] = 1
    reached = np.cumprod(steps, axis=1)
    edges = np.concatenate(
        [np.ones((len(reached), 1), dtype=np.float32), reached, np.zeros((len(reached), 1), dtype=np.float32)], 1
    )
    like = np.zeros(len(reached), dtype=np.float32)
    follow = np.zeros(len(reached), dtype=np.float32)
    for outcome in range(4):
        share = edges[:, outcome] - edges[:, outcome + 1]
        outcomes = np.full(len(reached), outcome)
        liked = like_given(scored, intercepts, outcomes)
        like += share * liked
        follow += share * liked * follow_given(scored, intercepts, outcomes, np.ones_like(like))
        follow += share * (1 - liked) * follow_given(scored, intercepts, outcomes, np.zeros_like(like))
    return np.concatenate([reached, like[:, None], follow[:, None]], axis=1)


def like_given(scored: ScoredEvents, intercepts: F32, outcome: I64) -> F32:
    """P(like), float32 [n], given the outcome, int64 [n]: 0 no click, 1 click, 2 long_view, 3 finish."""
    return _sigmoid(scored.scores[:, 3] + intercepts[3] + np.asarray(LIKE_STEP, dtype=np.float32)[outcome])


def follow_given(scored: ScoredEvents, intercepts: F32, outcome: I64, liked: F32) -> F32:
    """P(follow), float32 [n], given the outcome, int64 [n], and the like, float32 [n], 0 or 1."""
    step = np.asarray(FOLLOW_STEP, dtype=np.float32)[outcome] + np.float32(FOLLOW_AFTER_LIKE) * liked
    return _sigmoid(scored.scores[:, 4] + intercepts[4] + step)


def fit_intercepts(world: World) -> F32:
    """The intercepts float32 [S] that give the world KuaiRand's rates, fitted on views of its first PILOT_USERS users.

    The pilot depends on the world alone, so it is the same for any size of block.
    """
    users = draw_users(world, np.arange(PILOT_USERS))
    timeline = draw_timeline(users, world)
    rows = slice(None, None, max(1, len(timeline.user) // PILOT_EVENTS))
    pilot = score_events(world, users, Timeline(timeline.user[rows], timeline.avc[rows], timeline.time_ms[rows]))
    target = np.log(np.asarray(TARGET_RATES) / (1 - np.asarray(TARGET_RATES)))
    intercepts = target.astype(np.float32)
    # The logit of a mean rate rises by less than 1 per unit of its intercept, so these steps don't overshoot.
    for _ in range(20):
        rate = true_probabilities(pilot, intercepts).mean(axis=0, dtype=np.float64)
        intercepts = (intercepts + target - np.log(rate / (1 - rate))).astype(np.float32)
    return intercepts
