"""The features of a request, by the kernel that made the samples: from the state of a prepared folder, and from the
events since."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from coldrank.data.append import Prepared
from coldrank.data.errors import UserError
from coldrank.data.events import Events
from coldrank.data.ids import string_id
from coldrank.data.log import LONGEST_S
from coldrank.data.samples import past_columns
from coldrank.data.state.state import State
from coldrank.data.statistics import compute_statistics

Event = Mapping[str, Any]
# Events are counted once features of a later time are asked for, or when so many wait.
_PENDING = 4096
_FIELDS = ("user_id", "item_id", "time", "keys", "history", "signals", "known_after", "birth")
# Of a float of 32 bits.
_LARGEST = float(np.finfo(np.float32).max)


class FeatureState:
    """What is known of users, items and groups, up to now.

    An event is a mapping: `user_id`, `item_id` (integers, or strings, which become ids as in the log; a user of None is
    anonymous), `time` (ms since the epoch), and where the spec has them `keys`, `history` and `signals` (name -> value;
    one that lacks is unknown), `birth` of the item (ms), and `known_after` (signal -> seconds) for signals whose delay
    is a column of the log.
    What is observed stays in memory: the folder does not change.
    """

    def __init__(self, state: State, last: int) -> None:
        """last: time of the last event that the state has counted."""
        self._state, self._last = state, last
        self._pending: list[Event] = []

    @classmethod
    def open(cls, path: Path | str) -> "FeatureState":
        """The state of a folder as `prepare` writes it. Raises UserError if it has none, or one that is damaged."""
        base = Prepared.open(Path(path))
        return cls(base.ledger.state(base.data), base.ledger.whole.last)

    @property
    def time(self) -> int:
        """The time of the last event, ms."""
        return int(self._pending[-1]["time"]) if self._pending else self._last

    def observe(self, event: Event) -> None:
        """Takes the next event. Raises UserError for one that is earlier than the last, or of the folder's time."""
        self._check(event)
        time = event["time"]
        if time < self.time or time <= self._last:
            raise UserError(
                f"time={time}: should be later than {self._last}, and not before {self.time}: events come in order"
            )
        if len(self._pending) >= _PENDING:
            self._settle(time)
        self._pending.append(event)

    def features(self, user: int | str | None, candidates: Sequence[Event], time: int) -> pa.Table:
        """The counters, rates, ages and histories of a user's candidates as of a time, a row for each, as in samples.

        candidates: `item_id`, and the `keys` and `birth` of each as in an event; their outcomes are not known.
        Raises UserError for a time that is not later than what the state has seen.
        """
        _check_number("time", time)
        rows = [{**candidate, "user_id": user, "time": time, "signals": {}} for candidate in candidates]
        for row in rows:
            self._check(row)
        if time <= self._last:
            raise UserError(f"time={time}: the state has seen an event of {self._last}; should be later")
        self._settle(time)
        statistics = compute_statistics(self._events(rows), self._state, advance=False)
        columns: dict[str, Any] = {n: pa.array(v, from_pandas=True) for n, v in statistics.columns.items()}
        return pa.table(columns | past_columns(statistics, np.arange(len(rows))))

    def _settle(self, time: int) -> None:
        """Counts the pending events before a time: those of one time do not see each other."""
        end = bisect_left(self._pending, time, key=itemgetter("time"))
        if end:
            rows = sorted(self._pending[:end], key=lambda e: (e["time"], _id(e["user_id"]) or 0, _id(e["item_id"])))
            compute_statistics(self._events(rows), self._state)
            self._last, self._pending = int(rows[-1]["time"]), self._pending[end:]

    def _check(self, event: Event) -> None:
        shape = self._state.shape
        known = {
            "keys": {k for g in shape.groups for k in g.keys} - {"user", "item"},
            "history": {*shape.attributes, *shape.numbers},
            "signals": set(shape.signals),
            "known_after": {s for s, delay in shape.delays.items() if delay is None},
        }
        for name in event:
            if name not in _FIELDS:
                raise UserError(f"{name}: is no field of an event; these are {', '.join(_FIELDS)}")
        for field, names in known.items():
            if unknown := set(event.get(field, ())) - names:
                raise UserError(
                    f"{field}: {min(unknown)!r} is unknown; the state has {', '.join(sorted(names)) or 'none'}"
                )
        _check_number("time", event.get("time"))
        for name in ("user_id", "item_id"):
            if name == "item_id" or event.get(name, "") is not None:
                _check_id(name, event.get(name))
        past = event.get("history", {})
        for name, value in {
            **event.get("keys", {}),
            **{n: v for n, v in past.items() if n in shape.attributes},
        }.items():
            if value is not None:
                _check_id(name, value)
        for name in (n for n in shape.numbers if past.get(n) is not None):
            if not isinstance(past[name], Real) or isinstance(past[name], bool) or not abs(past[name]) < _LARGEST:
                raise UserError(f"history: {name} is {past[name]!r}; should be a number that 32 bits hold, or None")
        if event.get("birth") is not None:
            _check_number("birth", event["birth"])
        for signal, value in event.get("signals", {}).items():
            if value not in (0, 1, None):
                raise UserError(f"signals: {signal} is {value!r}; should be 0, 1 or None (unknown)")
            after = event.get("known_after", {}).get(signal, 0 if signal not in known["known_after"] else None)
            if value is not None and not (isinstance(after, int | float) and 0 <= after < LONGEST_S):
                raise UserError(f"known_after: {signal} is {after!r}; should be seconds, 0 to 10 years")

    def _events(self, rows: Sequence[Event]) -> Events:
        shape = self._state.shape
        keys: dict[str, list[int | None]] = {n: [_id(r[f"{n}_id"]) for r in rows] for n in ("user", "item")}
        for name in dict.fromkeys(k for g in shape.groups for k in g.keys):
            keys.setdefault(name, [_id(r.get("keys", {}).get(name)) for r in rows])

        def values(field: str, name: str, kind: type[np.generic]) -> NDArray[Any]:
            found = [_id(r.get(field, {}).get(name)) for r in rows]
            return np.array([-1 if v is None else v for v in found], kind)

        def numbers(name: str) -> NDArray[np.float32]:
            found = [r.get("history", {}).get(name) for r in rows]
            return np.array([np.nan if v is None else v for v in found], np.float32)

        def delays(signal: str, delay: int | None) -> list[int]:
            after = (r.get("known_after", {}).get(signal) or 0 for r in rows)
            return [round(1000 * a) if delay is None else delay for a in after]

        time = np.array([r["time"] for r in rows], np.int64)
        return Events(
            frame=pl.DataFrame(),
            time=time,
            day=np.zeros(len(rows), np.int32),
            birth=pl.Series([r.get("birth") for r in rows], dtype=pl.Int64),
            anonymous=np.array([k is None for k in keys["user"]], bool),
            keys={n: _values(of, -1 if n == "user" else 0) for n, of in keys.items()},
            codes={n: _codes(of) for n, of in keys.items()},
            signals={s: values("signals", s, np.int8) for s in shape.signals},
            attributes={a: values("history", a, np.int64) for a in shape.attributes}
            | {a: numbers(a) for a in shape.numbers},
            known={s: time + np.array(delays(s, d), np.int64) for s, d in shape.delays.items()},
        )


def _check_id(name: str, value: Any) -> None:
    if not isinstance(value, str):
        _check_number(name, value, " or a string")


def _check_number(name: str, value: Any, other: str = "") -> None:
    if not isinstance(value, Integral) or not -(2**63) <= int(value) < 2**63:
        raise UserError(f"{name}: {value!r}; should be an integer of 64 bits{other}")


def _id(value: int | str | None) -> int | None:
    return string_id(value) if isinstance(value, str) else value


def _values(keys: Sequence[int | None], missing: int) -> NDArray[np.int64]:
    return np.array([missing if k is None else k for k in keys], np.int64)


def _codes(keys: Sequence[int | None]) -> NDArray[np.int32]:
    number = {key: code for code, key in enumerate(sorted({k for k in keys if k is not None}))}
    return np.array([-1 if k is None else number[k] for k in keys], np.int32)
