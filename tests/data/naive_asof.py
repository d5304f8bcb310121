"""The as-of-time columns by a double loop over the events: slow, and plain enough to be seen to be right."""

from typing import Any

import numpy as np

from coldrank.data.log import Group

Event = dict[str, Any]


def naive_samples(events: list[Event], groups: list[Group], signals: list[str], history: int) -> list[dict[str, Any]]:
    """events: dicts with user, item, time, the keys of the groups, the signals, birth (None: unknown), in the order of
    (time, user, item). groups: parents first."""
    return [_sample(e, [p for p in events if p["time"] < e["time"]], groups, signals, history) for e in events]


def _sample(event: Event, past: list[Event], groups: list[Group], signals: list[str], history: int) -> dict[str, Any]:
    sample: dict[str, Any] = {}
    for group in groups:
        keys = [event[k] for k in group.keys]
        seen = [] if None in keys else [p for p in past if [p[k] for k in group.keys] == keys]
        sample[f"views:{group.name}"] = len(seen)
        for s in signals:
            prior = sample[f"rate:{group.parent}:{s}"] if group.parent else _rate(past, s, 0.5, 1.0)
            sample[f"rate:{group.name}:{s}"] = _rate(seen, s, prior, group.smoothing)
    of_user = [p for p in past if p["user"] == event["user"]]
    of_item = [p for p in past if p["item"] == event["item"]]
    sample["gap_h"] = np.float32((event["time"] - of_user[-1]["time"]) / 3_600_000) if of_user else None
    born = event["birth"] if event["birth"] is not None else of_item[0]["time"] if of_item else None
    sample["age_h"] = None if born is None else np.float32(max(event["time"] - born, 0) / 3_600_000)
    sample["history"] = of_user[-history:][::-1] if history else []
    return sample


def _rate(seen: list[Event], signal: str, prior: np.float32 | float, smoothing: float) -> np.float32:
    known = [e[signal] for e in seen if e[signal] is not None]
    return np.float32((sum(known) + smoothing * float(np.float32(prior))) / (len(known) + smoothing))
