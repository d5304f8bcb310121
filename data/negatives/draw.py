"""Which items are drawn for an event: a function of the seed, of the event, and of the items that are there before it.

Nothing else goes in, so that a log in other chunks, or a day at a time, has the same draws. E events; I items in the
order in which they came, so that those that an event may draw of are the first n; k items for each event, each once.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from coldrank.data.state.run import mixed

Int64s = NDArray[np.int64]
Keys = NDArray[np.uint64]
# Of events [R] and items [R]: whether the event may not draw the item, bool [R].
Excluded = Callable[[Int64s, Int64s], NDArray[np.bool_]]

_STEP = 0x9E3779B97F4A7C15  # of splitmix64
# So often an event tries its luck, before all items that are left to it are looked at.
_TRIES = 100
# Of events and items, looked at together.
_PAIRS = 1 << 22


def event_keys(seed: int, time: Int64s, user: Int64s, item: Int64s) -> Keys:
    """A number of each event, uint64 [E].

    Events of the same time, user and item lie side by side, and are told apart by their order.
    """
    place = np.arange(len(time))
    other = np.ones(len(time), bool)
    other[1:] = (np.diff(time) != 0) | (np.diff(user) != 0) | (np.diff(item) != 0)
    number = place - np.maximum.accumulate(np.where(other, place, 0))
    keys = np.full(len(time), seed, np.uint64)
    for values in (time, user, item, number):
        keys = mixed((keys ^ values.view(np.uint64)) + np.uint64(_STEP))
    return keys


def draw(keys: Keys, ends: Int64s, weights: Int64s | None, excluded: Excluded, count: int) -> Int64s:
    """The items that are drawn, int64 [E, k], by their places; -1 after the last, where fewer are left.

    keys: as `event_keys` makes them, [E]. ends: how many items are there, int64 [E]. weights: of the items, int64 [I],
    of a sum below 2^63; None: all alike. One after the other, without putting back, by the weights that are left.
    """
    chosen, got = np.full((len(keys), count), -1, np.int64), np.zeros(len(keys), np.int64)
    sums = None if weights is None else np.append(0, np.cumsum(weights))
    total = ends if sums is None else sums[ends]
    limit = np.where(total > 0, np.minimum(ends, _TRIES), 0)
    for number in range(int(limit.max(initial=0))):
        rows = np.flatnonzero((got < count) & (number < limit))
        if not len(rows):
            break
        drawn = _below(keys[rows], number, total[rows])
        places = drawn if sums is None else np.searchsorted(sums, drawn, side="right") - 1
        good = ~(chosen[rows] == places[:, None]).any(1)
        good[good] = ~excluded(rows[good], places[good])
        _take(chosen, got, rows[good], places[good])
    left = np.flatnonzero((got < count) & (total > 0))
    left = left[np.argsort(ends[left], kind="stable")]
    size = max(1, _PAIRS // int(ends[left].max(initial=1)))
    for first in range(0, len(left), size):
        _draw_of_all(left[first : first + size], keys, ends, weights, excluded, chosen, got)
    return chosen


def _draw_of_all(
    rows: Int64s, keys: Keys, ends: Int64s, weights: Int64s | None, excluded: Excluded, chosen: Int64s, got: Int64s
) -> None:
    """Goes on for some events [R], looking at all items that are left to them."""
    width = int(ends[rows].max())
    free = np.arange(width) < ends[rows, None]
    event, item = np.nonzero(free)
    free[event, item] = ~excluded(rows[event], item)
    event, column = np.nonzero(chosen[rows] >= 0)
    free[event, chosen[rows[event], column]] = False
    left = free.astype(np.int64) if weights is None else np.where(free, weights[:width], 0)
    for number in range(chosen.shape[1]):
        sums = np.cumsum(left, 1)
        some = np.flatnonzero((got[rows] < chosen.shape[1]) & (sums[:, -1] > 0))
        if not len(some):
            return
        drawn = _below(keys[rows[some]], _TRIES + number, sums[some, -1])
        places = (sums[some] <= drawn[:, None]).sum(1)
        left[some, places] = 0
        _take(chosen, got, rows[some], places)


def _below(keys: Keys, number: int, total: Int64s) -> Int64s:
    """A whole number from 0 to before `total`, int64 [R]. number: which draw."""
    step = np.uint64((number + 1) * _STEP % 2**64)
    return (mixed(keys + step) % total.astype(np.uint64)).astype(np.int64)


def _take(chosen: Int64s, got: Int64s, rows: Int64s, places: Int64s) -> None:
    chosen[rows, got[rows]] = places
    got[rows] += 1
