"""The state after two stretches of time, from the state after the first and what was counted in the second alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldrank.data import asof
from coldrank.data.state.groups import GroupValues, Tail
from coldrank.data.state.run import Int64s
from coldrank.data.state.state import WHEN, Shape


def history_lengths(shape: Shape) -> dict[str, int]:
    """Name of a history in the state -> its length, in events."""
    return {h.prefix: h.length for h in shape.histories}


def composed(before: GroupValues, more: GroupValues, lengths: Mapping[str, int]) -> GroupValues:
    """What G groups were counted to after two stretches of time. Whole numbers: the same as of all events in turn.

    before: after the first stretch. more: of the second alone, as `statistics.counted` has it.
    lengths: of the histories, in events.
    """
    return GroupValues(
        views=before.views + more.views,
        positives={s: n + more.positives[s] for s, n in before.positives.items()},
        known={s: n + more.known[s] for s, n in before.known.items()},
        first=np.where(before.first == asof.NONE, more.first, before.first),
        last=np.maximum(before.last, more.last),
        tails={h: _joined(tail, more.tails[h], lengths[h]) for h, tail in before.tails.items()},
    )


def when_counted(tail: Tail | None) -> tuple[NDArray[np.int32], Int64s]:
    """Of the kept events the group, and from when on each counts: before all that are not taken, unless it says so."""
    if tail is None:
        return np.empty(0, np.int32), np.empty(0, np.int64)
    groups = np.repeat(np.arange(len(tail.lengths), dtype=np.int32), tail.lengths)
    return groups, tail.values.get(WHEN, np.full(len(groups), asof.NONE))


def last_events(codes: asof.Ints, when: Int64s, values: Mapping[str, NDArray[Any]], groups: int, length: int) -> Tail:
    """The last events of each of G groups, `length` at most, oldest first.

    codes: the group of each of N events, 0 to G - 1; -1: none. when: from when on each counts, int64 [N]; ascending
    but where `values` has it. values: what is kept of them [N]. groups: G.
    """
    grouping = asof.Grouping.from_codes(codes, when, when=when if WHEN in values else None)
    lengths, events = asof.last_of_each(grouping, length)
    of_group = np.zeros(groups, np.int64)
    of_group[codes[grouping.representatives()]] = lengths  # a group may have none
    return Tail(of_group, {n: v[events] for n, v in values.items()})


def _joined(tail: Tail, more: Tail, length: int) -> Tail:
    (codes, when), (other_codes, other_when) = when_counted(tail), when_counted(more)
    values = {n: np.concatenate([v, more.values[n]]) for n, v in tail.values.items()}
    both = np.concatenate([codes, other_codes]), np.concatenate([when, other_when])
    return last_events(*both, values, len(tail.lengths), length)
