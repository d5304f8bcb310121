"""The draws of negatives, one event after the other, in Python's own whole numbers."""

from typing import Any

from coldrank.data.log import Negatives

Event = dict[str, Any]
HOUR_MS = 3_600_000
STEP, ALL = 0x9E3779B97F4A7C15, 2**64 - 1


def mix(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & ALL
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & ALL
    return value ^ (value >> 31)


def naive_draws(
    events: list[Event],
    settings: Negatives,
    born: dict[int, int] | None = None,
    period_h: float = 1,
    offset_h: float = 0,
) -> list[list[int]]:
    """The items that each event draws. events: in the order of time, user, item. born: item -> birth, of a table.
    Popularity is that of the last full `period_h` from midnight at `offset_h`."""
    period = int(period_h * HOUR_MS), int(offset_h * HOUR_MS)
    return [_of_event(n, events, settings, born or {}, *period) for n in range(len(events))]


def _of_event(
    n: int, events: list[Event], settings: Negatives, born: dict[int, int], period: int, offset: int
) -> list[int]:
    event = events[n]
    time, user, item = event["time"], event["user"], event["item"]
    if settings.of is not None and event[settings.of] != 1:
        return []
    key = settings.seed
    same = [p for p in events[:n] if (p["time"], p["user"], p["item"]) == (time, user, item)]
    for value in (time, user, item, len(same)):
        key = mix(((key ^ (value & ALL)) + STEP) & ALL)
    since = {i: b for i, b in born.items() if b <= time}
    for p in events:
        if p["time"] < time:
            since[p["item"]] = min(since.get(p["item"], 2**63), p["time"] + 1)
    there = sorted(since, key=lambda i: (since[i], i))
    begins = (time + offset) // period * period - offset
    counts = {i: sum(p["item"] == i and p["time"] < begins for p in events) for i in there}
    weights = [round(counts[i] ** settings.power * 4096) if settings.draw == "popularity" else 1 for i in there]
    out = {p["item"] for p in events if p["user"] == user and user is not None and p["time"] == time} | {item}
    if settings.seen == "never":
        out |= {p["item"] for p in events if p["user"] == user and p["time"] < time}
    drawn: list[int] = []
    for number in range(min(len(there), 100) if sum(weights) else 0):
        if len(drawn) < settings.per_positive:
            candidate = there[_at(weights, _number(key, number))]
            if candidate not in out and candidate not in drawn:
                drawn.append(candidate)
    for number in range(settings.per_positive):
        left = [0 if i in out or i in drawn else w for i, w in zip(there, weights, strict=True)]
        if len(drawn) < settings.per_positive and sum(left):
            drawn.append(there[_at(left, _number(key, 100 + number))])
    return drawn


def _number(key: int, number: int) -> int:
    return mix((key + (number + 1) * STEP) & ALL)


def _at(weights: list[int], number: int) -> int:
    """The place at which the sum of the weights exceeds the number, below their sum."""
    number %= sum(weights)
    for place, weight in enumerate(weights):
        number -= weight
        if number < 0:
            return place
    raise AssertionError
