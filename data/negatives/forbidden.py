"""What an event may not draw: its own item, others that its user has at the same time, and those that he had before."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coldrank.data.negatives.catalogue import Catalogue
from coldrank.data.state.state import State

Int64s = NDArray[np.int64]


class Forbidden:
    """Of the events of a chunk and the items of a catalogue."""

    def __init__(self, frame: pl.DataFrame, places: Int64s, catalogue: Catalogue, state: State | None) -> None:
        """frame: the planned columns, by time and user. places: of the events' items, int64 [N]. state: before the
        chunk, with a group of user and item; None: what a user had before may be drawn."""
        self._items, self._size, self._state = catalogue.items, len(catalogue.items), state
        self._time, self._user = frame["time"].to_numpy(), frame["user_id"].to_numpy()
        other = np.ones(len(frame), bool)
        other[1:] = (np.diff(self._time) != 0) | (np.diff(self._user) != 0)
        # Which events are of one user and time.
        self._run = np.cumsum(other)
        self._at_once = np.sort(self._run * self._size + places)
        if state is not None:
            self._group = next(g for g in state.shape.groups if sorted(g.keys) == ["item", "user"])
            self._see(frame, places, catalogue, state)

    def __call__(self, rows: Int64s, places: Int64s) -> NDArray[np.bool_]:
        """Whether events may not draw items, bool [R]. rows: the events, int64 [R]; places: of the items, int64 [R]."""
        forbidden = _is_in(self._at_once, self._run[rows] * self._size + places)
        if self._state is None:
            return forbidden
        pairs = self._code[rows] * self._size + places
        near = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        forbidden |= (self._pairs[near] == pairs) & (self._since[near] < self._time[rows])
        keys = {"user": self._user[rows], "item": self._items[places]}
        return forbidden | (self._state.groups[self._group.name].find([keys[k] for k in self._group.keys]).views > 0)

    def _see(self, frame: pl.DataFrame, places: Int64s, catalogue: Catalogue, state: State) -> None:
        """The pairs of users and items that the state does not hold yet, and when each was first."""
        users, items, times = self._user, places, self._time
        if (waiting := state.pending) is not None:
            known = waiting.codes["user"] >= 0
            users = np.concatenate([waiting.keys["user"][known], users])
            items = np.concatenate([catalogue.place(waiting.keys["item"][known]), items])
            times = np.concatenate([waiting.time[known], times])
        code = np.unique(users, return_inverse=True)[1].astype(np.int64)
        self._pairs, first = np.unique(code * self._size + items, return_index=True)
        self._since, self._code = times[first], code[len(code) - len(frame) :]


def _is_in(held: Int64s, values: Int64s) -> NDArray[np.bool_]:
    """held: ascending, not empty."""
    return held[np.minimum(np.searchsorted(held, values), len(held) - 1)] == values
