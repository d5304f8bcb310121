"""What users did: the events of a block in the columns of a KuaiRand log."""

from datetime import date

import numpy as np
import polars as pl

from coldrank.data.simulate.random import F32, I64
from coldrank.data.simulate.scores import (
    TABS,
    TASKS,
    ScoredEvents,
    follow_given,
    like_given,
    true_probabilities,
)
from coldrank.data.simulate.world import Users

UTC_OFFSET_MS = 8 * 3_600_000  # KuaiRand's date and hourmin are in UTC+8
# Rates of the KuaiRand-Pure standard log; drawn without regard to anything else, as no task is made of them.
COMMENT_RATE, FORWARD_RATE, HATE_RATE = 0.0025, 0.0008, 0.0008
PROFILE_RATE_AFTER_CLICK = 0.04
SKIP_AT_ONCE = 0.17  # share of play time 0 among the views without a click, same log


def log_table(scored: ScoredEvents, users: Users, intercepts: F32, first_day: date) -> pl.DataFrame:
    """The block's events, n rows sorted by time, in KuaiRand's log columns; then true_<task>, float32, for every task.

    intercepts: float32 [S].
    """
    true = true_probabilities(scored, intercepts)
    draws = scored.draws
    outcome = (draws[0][:, None] < true[:, :3]).sum(axis=1)
    like = draws[1] < like_given(scored, intercepts, outcome)
    follow = draws[2] < follow_given(scored, intercepts, outcome, like.astype(np.float32))
    local_ms = scored.timeline.time_ms + np.datetime64(first_day, "ms").astype(np.int64)
    day = local_ms // 86_400_000
    dates = np.array([_date_number(d) for d in range(day.min(), day.max() + 1)])
    none = np.zeros_like(day)
    columns = {
        "user_id": users.ids[scored.timeline.user],
        "video_id": scored.videos.ids[scored.video],
        "date": dates[day - day.min()],
        "hourmin": local_ms // 3_600_000 % 24 * 100,
        "time_ms": local_ms - UTC_OFFSET_MS,
        "is_click": outcome >= 1,
        "is_like": like,
        "is_follow": follow,
        "is_comment": draws[4] < COMMENT_RATE,
        "is_forward": draws[5] < FORWARD_RATE,
        "is_hate": draws[6] < HATE_RATE,
        "long_view": outcome >= 2,
        "play_time_ms": _play_time(scored, outcome),
        "duration_ms": scored.videos.duration_ms[scored.video],
        "profile_stay_time": none,
        "comment_stay_time": none,
        "is_profile_enter": (outcome >= 1) & (draws[7] < PROFILE_RATE_AFTER_CLICK),
        "is_rand": none,
        "tab": TABS[scored.tab],
    }
    columns = {name: values.astype(np.int8) if values.dtype == np.bool_ else values for name, values in columns.items()}
    columns |= {f"true_{task}": true[:, i] for i, task in enumerate(TASKS)}
    order = np.argsort(scored.timeline.time_ms, kind="stable")
    return pl.DataFrame({name: values[order] for name, values in columns.items()})


def _date_number(day: int) -> int:
    """20220505 for the day, counted from 1970-01-01, of 2022-05-05."""
    return int(date.fromordinal(date(1970, 1, 1).toordinal() + day).strftime("%Y%m%d"))


def _play_time(scored: ScoredEvents, outcome: I64) -> I64:
    """Play time in ms, int64 [n], between the thresholds of the outcome, int64 [n].

    Its distribution per outcome is shaped after the log's.
    """
    u, edges = scored.draws[3], scored.thresholds.astype(np.float32)
    skip = edges[:, 0] * np.maximum(0, (u - SKIP_AT_ONCE) / (1 - SKIP_AT_ONCE)) ** 1.5
    click = edges[:, 0] * (edges[:, 1] / edges[:, 0]) ** u
    long_view = edges[:, 1] * (edges[:, 2] / edges[:, 1]) ** (u * (1 - 0.3 * scored.new_user))
    again = edges[:, 2] * (1 + np.minimum(0.08 * u / (1 - u), 19))
    play = np.choose(outcome, (skip, click, long_view, again)).astype(np.int64)
    rows = np.arange(len(play))
    low = np.concatenate([np.zeros((len(play), 1), dtype=np.int64), scored.thresholds], axis=1)[rows, outcome]
    below_next = np.concatenate([scored.thresholds - 1, np.full((len(play), 1), np.iinfo(np.int64).max)], axis=1)
    clipped: I64 = np.clip(play, low, below_next[rows, outcome])
    return clipped
