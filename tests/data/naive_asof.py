"""The as-of-time columns by a double loop over the events: slow, and plain enough to be seen to be right."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from coldrank.data.log import Group, History

Event = dict[str, Any]


def naive_samples(
    events: list[Event],
    groups: list[Group],
    signals: list[str],
    history: int,
    *,
    refresh_h: float = 0,
    histories: Mapping[str, History] | None = None,
    asked: list[Event] | None = None,
) -> list[dict[str, Any]]:
    """events: dicts with user, item, time, the keys of the groups, the signals, `after:<signal>` (ms until its outcome
    is known; none: 0), birth (None: unknown), in the order of (time, user, item). groups: parents first, without hours
    of refresh as `refresh_h`. asked: whose samples are wanted, whether they are events or not; None: the events'."""
    wanted = events if asked is None else asked
    return [_sample(e, events, groups, signals, history, refresh_h, histories or {}) for e in wanted]


def _sample(
    event: Event,
    events: list[Event],
    groups: list[Group],
    signals: list[str],
    history: int,
    refresh_h: float,
    histories: Mapping[str, History],
) -> dict[str, Any]:
    def seen_of(hours: float | None) -> int:
        """What counts before this is seen."""
        every = int((refresh_h if hours is None else hours) * 3_600_000)
        return event["time"] // every * every if every else event["time"]

    sample: dict[str, Any] = {}
    for group in groups:
        keys, seen = [event[k] for k in group.keys], seen_of(group.refresh_h)
        members = [] if None in keys else [p for p in events if [p[k] for k in group.keys] == keys]
        sample[f"views:{group.name}"] = sum(p["time"] < seen for p in members)
        for s in signals:
            whole = _rate(events, s, seen_of(None), 0.5, 1.0)
            prior = sample[f"rate:{group.parent}:{s}"] if group.parent else whole
            sample[f"rate:{group.name}:{s}"] = _rate(members, s, seen, prior, group.smoothing)
    of_kind = {g.name: seen_of(g.refresh_h) for g in groups}
    of_user = [p for p in events if p["user"] == event["user"] and p["time"] < of_kind["user"]]
    of_item = [p for p in events if p["item"] == event["item"] and p["time"] < of_kind["item"]]
    sample["gap_h"] = np.float32((event["time"] - of_user[-1]["time"]) / 3_600_000) if of_user else None
    born = event["birth"] if event["birth"] is not None else of_item[0]["time"] if of_item else None
    sample["age_h"] = None if born is None else np.float32(max(event["time"] - born, 0) / 3_600_000)
    sample["history"] = _shown(of_user[-history:][::-1] if history else [], signals, of_kind["user"])
    for name, of in histories.items():
        past = [p for p in events if p["user"] == event["user"] and _known_at(p, of.where) < of_kind["user"]]
        past = [p for p in past if of.where is None or p[of.where] == 1]
        past = sorted(past, key=lambda p: _known_at(p, of.where))[-of.length :][::-1]
        sample[f"history:{name}"] = _shown(past, signals, of_kind["user"])
    return sample


def _known_at(event: Event, signal: str | None) -> int:
    return event["time"] + event.get(f"after:{signal}", 0)


def _shown(past: list[Event], signals: list[str], seen: int) -> list[Event]:
    """The events, with the outcomes that are not known yet as unknown."""
    return [p | {s: p[s] if _known_at(p, s) < seen else None for s in signals} for p in past]


def _rate(members: list[Event], signal: str, seen: int, prior: np.float32 | float, smoothing: float) -> np.float32:
    known = [e[signal] for e in members if e[signal] is not None and _known_at(e, signal) < seen]
    return np.float32((sum(known) + smoothing * float(np.float32(prior))) / (len(known) + smoothing))
