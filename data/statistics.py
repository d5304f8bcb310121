"""The kernel: counters, rates, ages and histories of a chunk of events, each as of the event's time, from the state
before the chunk; and the state after it.

A chunk holds all events of an interval of time. Whatever a log is cut into, its events get the same values: what a
state keeps are whole numbers, so that sums and quotients are the same floats. An event that not all that comes will see
whole, as an outcome of it is not known yet or a refresh has not been, waits beside the state (`State.pending`) and goes
through the kernel with the next chunk.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldrank.data import asof
from coldrank.data.events import Events
from coldrank.data.log import Group
from coldrank.data.state.compose import last_events, when_counted
from coldrank.data.state.events import StateEvents
from coldrank.data.state.groups import GroupValues, Tail
from coldrank.data.state.state import TIME, WHEN, HistoryShape, Shape, State

Int64s = NDArray[np.int64]
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Past:
    """A history of each of N events, and what is shown of it."""

    histories: asof.Histories
    """Which events."""
    values: dict[str, NDArray[Any]]
    """Name -> value of every event that histories number; of `hours` its time."""
    known: dict[str, Int64s]
    """Signal with a delay -> when it is known of every event that histories number."""
    now: Int64s
    """Time of each event, int64 [N]."""
    seen: Int64s
    """Each event sees what was known before this, int64 [N]."""

    def columns(self, rows: Int64s) -> tuple[NDArray[np.int32], dict[str, NDArray[Any]]]:
        """The histories of some events, most recent first: offsets int32 [R + 1], and name -> values [V]."""
        offsets, events = self.histories.gather(rows)
        columns = {}
        for name, values in self.values.items():
            shown = values[events]
            if name == "hours":
                shown = ((self._each(self.now[rows], offsets) - shown) / 3_600_000).astype(np.float32)
            elif name in self.known:
                unknown = self.known[name][events] >= self._each(self.seen[rows], offsets)
                shown = np.where(unknown, np.int8(-1), shown)
            columns[name] = shown
        return offsets, columns

    @staticmethod
    def _each(values: Int64s, offsets: NDArray[np.int32]) -> Int64s:
        return np.repeat(values, np.diff(offsets))


@dataclass(frozen=True, slots=True)
class Statistics:
    """What was known of each of N events before it."""

    columns: dict[str, NDArray[Any]]
    """Name -> int32 or float32 [N]; NaN where there is no value."""
    pasts: dict[str, Past]
    """Prefix of the columns of a history -> the history."""


@dataclass(frozen=True, slots=True)
class _Groups:
    """The groups of a kind that some events are of, and what the state has of them."""

    grouping: asof.Grouping
    """The events, in the order in which they count."""
    keys: list[Int64s]
    """For each key, its value of each group, int64 [G]."""
    before: GroupValues
    """What the groups were counted to before the events."""

    @classmethod
    def find(cls, state: State, group: Group, met: StateEvents, grouping: asof.Grouping) -> "_Groups":
        keys = [met.keys[k][grouping.representatives()] for k in group.keys]
        return cls(grouping, keys, state.groups[group.name].find(keys))

    def of_event(self) -> NDArray[np.int32]:
        """The group of each event, 0 to G - 1; -1: none."""
        return self.grouping.spread(self.grouping.group, -1)


class _View:
    """The events that go through the kernel: those that waited and those of a chunk; and when they count."""

    def __init__(self, met: StateEvents, shape: Shape, first: int, never: NDArray[np.bool_] | None) -> None:
        """first: those from here on are the chunk's. never: which do not count, bool [N]; None: all do."""
        self.met, self.shape, self.first, self.never = met, shape, first, never
        # Whether every event counts at once, and sees all that counts.
        self.plain = never is None and not (met.known or shape.refresh_h or any(g.refresh_h for g in shape.groups))

    def seen(self, refresh_h: float | None) -> Int64s:
        """Each event sees what was known before this, int64 [N]."""
        return self.shape.refreshed(self.met.time, refresh_h)

    def counts(self, signal: str | None = None) -> Int64s:
        """From when on each event, or its outcome, counts, int64 [N]."""
        counts = self.met.known.get(signal or "", self.met.time)
        return counts if self.never is None else np.where(self.never, _NEVER, counts)

    def grouping(self, codes: asof.Ints, refresh_h: float | None, signal: str | None = None) -> asof.Grouping:
        """The groups of the events, in the order in which they, or their outcomes, count."""
        when = self.counts(signal) if signal in self.met.known or self.never is not None else None
        seen = self.seen(refresh_h) if refresh_h or when is not None else None
        return asof.Grouping.from_codes(codes, self.met.time, when=when, seen=seen)

    def own(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of the chunk's events."""
        return values[self.first :]


def compute_statistics(events: Events, state: State, *, advance: bool = True) -> Statistics:
    """Everything that needs the order of events: one sort per group, parents before the groups whose prior they are.

    events: a chunk, later than all that the state has seen. advance: whether the state sees them; else they have not
    happened, and none sees another, whatever their times. Negatives among them see what is before their time, and
    nobody sees them.
    """
    view = _view(events, state, advance=advance)
    statistics, found = _known(events, state, view)
    if advance:
        never = view.never
        _advance(state, view.met if never is None else view.met.only(~never), found if view.plain else None)
    return statistics


def statistics_as_of(events: Events, state: State) -> Statistics:
    """As `compute_statistics`, of events that have happened, but the state stays as it was."""
    return _known(events, state, _view(events, state, advance=True))[0]


def _view(events: Events, state: State, *, advance: bool) -> _View:
    met, waiting = events_met(events, state.shape), state.pending
    if waiting:
        met = waiting.then(met)
    first = len(waiting or ())
    never = None if advance else np.arange(len(met)) >= first
    if advance and events.sampled is not None:
        never = np.concatenate([np.zeros(first, bool), events.sampled])
    return _View(met, state.shape, first, never)


def _known(events: Events, state: State, view: _View) -> tuple[Statistics, dict[str, _Groups]]:
    """What was known of a chunk's events, and the groups of all events, by kind."""
    shape, met = state.shape, view.met
    rates = _log_rates(view, state)
    columns: dict[str, NDArray[Any]] = {}
    pasts: dict[str, Past] = {}
    found: dict[str, _Groups] = {}
    for group in shape.groups:
        codes = asof.combine([met.codes[k] for k in group.keys])
        grouping = view.grouping(codes, group.refresh_h)
        groups = found[group.name] = _Groups.find(state, group, met, grouping)
        before = groups.before
        columns[views_column(group.name)] = view.own(grouping.views(before.views))
        for signal, values in met.signals.items():
            prior = rates[f"{group.parent or ''}:{signal}"]
            of_signal = view.grouping(codes, group.refresh_h, signal) if signal in met.known else grouping
            earlier = before.positives[signal], before.known[signal]
            rate = of_signal.rate(values, prior, group.smoothing, earlier)
            rates[f"{group.name}:{signal}"] = rate
            columns[f"rate_{group.name}_{signal}"] = view.own(rate)
        if group.name == "user":
            columns["user_gap_h"] = view.own(grouping.hours_since_last(met.time, before.last))
        elif group.name == "item":
            columns["item_age_h"] = _item_age(events, view.own(grouping.hours_since_first(met.time, before.first)))
        for history in (h for h in shape.histories if h.group == group.name):
            pasts[history.prefix] = _past(view, history, groups, view.seen(group.refresh_h))
    return Statistics(columns, {h.prefix: pasts[h.prefix] for h in shape.histories}), found


def views_column(group: str) -> str:
    """Column of the group's counter."""
    return f"{group}_views" if group in ("user", "item") else f"views_{group}"


def events_met(events: Events, shape: Shape) -> StateEvents:
    """What a state takes of a chunk's events."""
    keys = dict.fromkeys(["user", "item", *(k for g in shape.groups for k in g.keys)])
    return StateEvents(
        time=events.time,
        keys={k: events.keys[k] for k in keys},
        codes={k: events.codes[k] for k in keys},
        signals=events.signals,
        attributes=events.attributes,
        known=events.known,
    )


def _log_rates(view: _View, state: State) -> dict[str, asof.Floats]:
    """`:signal` -> its rate in the whole log before each event."""
    codes, refresh_h, total = np.zeros(len(view.met), np.int32), state.shape.refresh_h, state.total
    whole = view.grouping(codes, refresh_h)
    rates = {}
    for signal, values in view.met.signals.items():
        of_signal = view.grouping(codes, refresh_h, signal) if signal in view.met.known else whole
        earlier = total.positives[signal], total.known[signal]
        rates[f":{signal}"] = of_signal.rate(values, asof.LOG_PRIOR, asof.LOG_SMOOTHING, earlier)
    return rates


def _advance(state: State, met: StateEvents, found: dict[str, _Groups] | None) -> None:
    """The state takes the events that all that comes will see whole; the others wait.

    found: the groups of all events in the order of time, where every event counts at once; None: they are made here.
    """
    if not len(met):
        return
    waits = np.flatnonzero(counted_whole(met) >= state.shape.horizon(int(met.time[-1]) + 1))
    end = int(waits[0]) if len(waits) else len(met)
    state.pending = met.part(end, len(met)) if end < len(met) else None
    _take(state, met.part(0, end), found)


def counted_whole(met: StateEvents | Events) -> Int64s:
    """From when on each event counts with all its outcomes, int64 [N], ms."""
    return np.max([met.time, *(np.where(met.signals[s] >= 0, k, met.time) for s, k in met.known.items())], axis=0)


def counted(met: StateEvents, shape: Shape) -> State:
    """The state of a log that is these events alone, all of them seen whole. In memory."""
    state = State(shape)
    _take(state, met, None)
    return state


def _take(state: State, taken: StateEvents, found: dict[str, _Groups] | None) -> None:
    """The state counts events. found: as of `_advance`."""
    for group in state.shape.groups:
        if found is None:
            codes = asof.combine([taken.codes[k] for k in group.keys])
            groups = _Groups.find(state, group, taken, asof.Grouping.from_codes(codes, taken.time))
        else:
            groups = found[group.name]
        tails = {h.prefix: _tail(h, groups, taken) for h in state.shape.histories if h.group == group.name and h.length}
        state.groups[group.name].put(groups.keys, _after(groups.before, groups.grouping, taken, tails))
    whole = asof.Grouping.from_codes(np.zeros(len(taken), np.int32), taken.time)
    if len(taken):
        state.total = _after(state.total, whole, taken, {})


def _after(before: GroupValues, grouping: asof.Grouping, met: StateEvents, tails: dict[str, Tail]) -> GroupValues:
    """What the groups were counted to after the events."""
    first = met.time[grouping.representatives()]
    ends = grouping.firsts + grouping.sizes() - 1
    return GroupValues(
        views=before.views + grouping.sizes(),
        positives={s: before.positives[s] + grouping.total(v == 1) for s, v in met.signals.items()},
        known={s: before.known[s] + grouping.total(v >= 0) for s, v in met.signals.items()},
        first=np.where(before.first == asof.NONE, first, before.first),
        last=met.time[grouping.order[ends]],
        tails=tails,
    )


def _after_tail(tail: Tail | None, values: NDArray[Any], name: str) -> NDArray[Any]:
    """A value of the kept events, and of those after them."""
    return values if tail is None or not len(tail.values[name]) else np.concatenate([tail.values[name], values])


def _kept(history: HistoryShape, met: StateEvents) -> dict[str, NDArray[Any]]:
    """What a history keeps of each event."""
    found: dict[str, NDArray[Any]] = {"user_id": met.keys["user"], "item_id": met.keys["item"], "hours": met.time}
    found |= dict(met.attributes) | dict(met.signals)
    values = {TIME if n == "hours" else n: found[n] for n in history.columns}
    return values | ({WHEN: met.known[history.where]} if history.where and history.where in met.known else {})


def _past(view: _View, history: HistoryShape, groups: _Groups, seen: Int64s) -> Past:
    """A history of the chunk's events. seen: every event sees what was known before this, int64 [N]."""
    met, tail = view.met, groups.before.tails.get(history.prefix)
    kept, kept_when = when_counted(tail)
    skip = len(kept)
    codes = np.concatenate([kept, groups.of_event()])
    counts = view.counts(history.where)
    if view.plain and history.where is None:
        grouping = asof.Grouping.from_codes(codes, np.concatenate([kept_when, counts]))
    else:
        if history.where is not None:
            # An event that is in no history has one nevertheless.
            counts = np.where(met.signals[history.where] == 1, counts, _NEVER)
        when, until = np.concatenate([kept_when, counts]), np.concatenate([np.full(skip, asof.NONE), seen])
        grouping = asof.Grouping.from_codes(codes, when, when=when, seen=until)
    values = {n: v if n == WHEN else _after_tail(tail, v, n) for n, v in _kept(history, met).items()}
    return Past(
        asof.Histories.from_grouping(grouping, history.length, skip + view.first),
        {n: values[TIME if n == "hours" else n] for n in history.columns},
        {s: np.concatenate([np.full(skip, asof.NONE), k]) for s, k in met.known.items() if s in history.columns},
        view.own(met.time),
        view.own(seen),
    )


def _tail(history: HistoryShape, groups: _Groups, met: StateEvents) -> Tail:
    """The last events of each group after some more."""
    tail = groups.before.tails[history.prefix]
    kept, kept_when = when_counted(tail)
    codes, values = groups.of_event(), _kept(history, met)
    counts = values.get(WHEN, met.time)
    if history.where is not None:
        is_in = met.signals[history.where] == 1
        codes, counts, values = codes[is_in], counts[is_in], {n: v[is_in] for n, v in values.items()}
    codes, when = np.concatenate([kept, codes]), np.concatenate([kept_when, counts])
    values = {n: _after_tail(tail, v, n) for n, v in values.items()}
    return last_events(codes, when, values, len(tail.lengths), history.length)


def _item_age(events: Events, since_first: NDArray[np.float32]) -> NDArray[np.float32]:
    """Hours since the item's birth, never negative; where that is unknown, since its first event before."""
    known = events.birth.is_not_null().to_numpy()
    age = np.maximum(events.time - events.birth.fill_null(0).to_numpy(), 0) / 3_600_000
    return np.where(known, age, since_first).astype(np.float32)
