"""Counters, rates, ages and histories of all events, each as of the event's time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from coldrank.data import asof
from coldrank.data.events import Events
from coldrank.data.log import LogSpec


@dataclass(frozen=True, slots=True)
class Statistics:
    """What was known of each of N events before it."""

    columns: dict[str, NDArray[Any]]
    """Name -> int32 or float32 [N]; NaN where there is no value."""
    histories: asof.Histories
    """The past events of each event's user."""
    item_histories: asof.Histories | None = None
    """The past events of each event's item; None: not asked for."""


def compute_statistics(events: Events, spec: LogSpec, history_length: int, item_history: int = 0) -> Statistics:
    """Everything that needs the order of events: one sort per group, parents before the groups whose prior they are.

    history_length, item_history: longest history of a user and of an item, in events; 0: no histories of items.
    """
    whole = asof.Grouping.from_codes(np.zeros(len(events.time), np.int32), events.time)
    log_rate = {s: whole.rate(v, asof.LOG_PRIOR, asof.LOG_SMOOTHING) for s, v in events.signals.items()}
    columns: dict[str, NDArray[Any]] = {}
    histories = item_histories = None
    for group in tqdm(spec.all_groups(), desc="counting", unit="group", disable=None):
        grouping = asof.Grouping.from_codes(asof.combine([events.codes[k] for k in group.keys]), events.time)
        columns[views_column(group.name)] = grouping.views()
        for signal, values in events.signals.items():
            prior = columns[f"rate_{group.parent}_{signal}"] if group.parent else log_rate[signal]
            columns[f"rate_{group.name}_{signal}"] = grouping.rate(values, prior, group.smoothing)
        if group.name == "user":
            columns["user_gap_h"] = grouping.hours_since_last(events.time)
            histories = asof.Histories.from_grouping(grouping, history_length)
        elif group.name == "item":
            columns["item_age_h"] = _item_age(events, grouping)
            item_histories = asof.Histories.from_grouping(grouping, item_history) if item_history else None
    assert histories is not None  # all_groups() holds user
    return Statistics(columns, histories, item_histories)


def views_column(group: str) -> str:
    """Column of the group's counter."""
    return f"{group}_views" if group in ("user", "item") else f"views_{group}"


def _item_age(events: Events, items: asof.Grouping) -> NDArray[np.float32]:
    """Hours since the item's birth, never negative; where that is unknown, since its first event before."""
    known = events.birth.is_not_null().to_numpy()
    age = np.maximum(events.time - events.birth.fill_null(0).to_numpy(), 0) / 3_600_000
    return np.where(known, age, items.hours_since_first(events.time)).astype(np.float32)
