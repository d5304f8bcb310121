"""The kernel: counters, rates, ages and histories of a chunk of events, each as of the event's time, from the state
before the chunk; and the state after it.

A chunk holds all events of an interval of time. Whatever a log is cut into, its events get the same values: what a
state keeps are whole numbers, so that sums and quotients are the same floats.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldrank.data import asof
from coldrank.data.events import Events
from coldrank.data.state.groups import GroupValues
from coldrank.data.state.state import State


@dataclass(frozen=True, slots=True)
class Past:
    """The past events of each event's user or item, and what is shown of them."""

    histories: asof.Histories
    """Which they are."""
    values: dict[str, NDArray[Any]]
    """Name -> value of every event that histories number."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What was known of each of N events before it."""

    columns: dict[str, NDArray[Any]]
    """Name -> int32 or float32 [N]; NaN where there is no value."""
    users: Past
    """The past events of each event's user."""
    items: Past | None = None
    """The past events of each event's item; None: not asked for."""


def compute_statistics(events: Events, state: State, *, advance: bool = True) -> Statistics:
    """Everything that needs the order of events: one sort per group, parents before the groups whose prior they are.

    events: a chunk, later than all that the state has seen. advance: whether the state sees them; else they have not
    happened, and none sees another, whatever their times.
    """
    shape, signals = state.shape, events.signals
    order = events.time if advance else np.zeros_like(events.time)
    whole = asof.Grouping.from_codes(np.zeros(len(events.time), np.int32), order)
    log_rate = {
        s: whole.rate(v, asof.LOG_PRIOR, asof.LOG_SMOOTHING, (state.total.positives[s], state.total.known[s]))
        for s, v in signals.items()
    }
    columns: dict[str, NDArray[Any]] = {}
    users = items = None
    for group in shape.groups:
        grouping = asof.Grouping.from_codes(asof.combine([events.codes[k] for k in group.keys]), order)
        keys = [events.keys[k][grouping.representatives()] for k in group.keys]
        stored = state.groups[group.name]
        before = stored.find(keys)
        columns[views_column(group.name)] = grouping.views(before.views)
        for signal, values in signals.items():
            prior = columns[f"rate_{group.parent}_{signal}"] if group.parent else log_rate[signal]
            earlier = before.positives[signal], before.known[signal]
            columns[f"rate_{group.name}_{signal}"] = grouping.rate(values, prior, group.smoothing, earlier)
        tail = before
        if group.name == "user":
            columns["user_gap_h"] = grouping.hours_since_last(events.time, before.last)
            shown = {"item_id": events.keys["item"]} | events.attributes | signals
            users, tail = _past(order, events.codes["user"], before, shown, shape.history)
        elif group.name == "item":
            columns["item_age_h"] = _item_age(events, grouping, before.first)
            if shape.item_history:
                shown = {"user_id": events.keys["user"]}
                items, tail = _past(order, events.codes["item"], before, shown, shape.item_history)
        if advance:
            stored.put(keys, _after(before, grouping, events, tail))
    if advance:
        state.total = _after(state.total, whole, events, state.total)
    assert users is not None  # all_groups() holds user
    return Statistics(columns, users, items)


def views_column(group: str) -> str:
    """Column of the group's counter."""
    return f"{group}_views" if group in ("user", "item") else f"views_{group}"


def _after(before: GroupValues, grouping: asof.Grouping, events: Events, tail: GroupValues) -> GroupValues:
    """What the groups were counted to after the events. tail: their last events then."""
    first = events.time[grouping.representatives()]
    ends = grouping.firsts + grouping.sizes() - 1
    return GroupValues(
        views=before.views + grouping.sizes(),
        positives={s: before.positives[s] + grouping.total(v == 1) for s, v in events.signals.items()},
        known={s: before.known[s] + grouping.total(v >= 0) for s, v in events.signals.items()},
        first=np.where(before.first == asof.NONE, first, before.first),
        last=events.time[grouping.order[ends]],
        tail_lengths=tail.tail_lengths,
        tail=tail.tail,
    )


def _past(
    order: NDArray[np.int64],
    codes: NDArray[np.int32],
    before: GroupValues,
    shown: Mapping[str, NDArray[Any]],
    length: int,
) -> tuple[Past, GroupValues]:
    """The histories of the events, and the last events of each group after them.

    order: when each event comes, int64 [N], ascending. codes: the group of each, int32 [N]: every one of 0 to G - 1,
    and none of -1. shown: name -> what histories show of each, [N]. length: longest history, in events.
    """
    earlier = np.repeat(np.arange(len(before.views), dtype=np.int32), before.tail_lengths)
    # Those before come first, in their order: no event of the chunk is as early.
    time = np.concatenate([np.full(len(earlier), asof.NONE), order])
    values = {n: np.concatenate([before.tail[n], v]) if len(earlier) else v for n, v in shown.items()}
    grouping = asof.Grouping.from_codes(np.concatenate([earlier, codes]), time)
    histories = asof.Histories.from_grouping(grouping, length, len(earlier))
    lengths, kept = asof.last_of_each(grouping, length)
    tail = GroupValues(
        views=before.views,
        positives=before.positives,
        known=before.known,
        first=before.first,
        last=before.last,
        tail_lengths=lengths,
        tail={n: v[kept] for n, v in values.items()} if length else {},
    )
    return Past(histories, values), tail


def _item_age(events: Events, items: asof.Grouping, first: NDArray[np.int64]) -> NDArray[np.float32]:
    """Hours since the item's birth, never negative; where that is unknown, since its first event before."""
    known = events.birth.is_not_null().to_numpy()
    age = np.maximum(events.time - events.birth.fill_null(0).to_numpy(), 0) / 3_600_000
    return np.where(known, age, items.hours_since_first(events.time, first)).astype(np.float32)
