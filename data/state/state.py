"""The state of a log: what all its groups were counted to, up to a time."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coldrank.data.asof import NONE
from coldrank.data.log import Group, LogSpec
from coldrank.data.state.events import StateEvents
from coldrank.data.state.groups import GroupLayout, GroupState, GroupValues
from coldrank.data.state.run import Int64s

Json = dict[str, Any]
_HOUR_MS = 3_600_000
# Of an event in a history, kept beside what is shown: when it was, and from when on it counts.
TIME, WHEN = ":time", ":when"


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryShape:
    """A history of each user or item."""

    group: str
    """user or item."""
    prefix: str
    """Of its columns in the samples; its name in the state, too."""
    length: int
    """Longest, in events."""
    where: str | None = None
    """The signal that is 1 in its events; None: all events."""
    columns: tuple[str, ...]
    """What it shows of each event: user_id, item_id, attributes, signals, hours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What a state is of."""

    groups: tuple[Group, ...]
    """Parents before children, each with its hours of refresh."""
    signals: tuple[str, ...]
    """What is counted."""
    attributes: tuple[str, ...]
    """What histories may show of an event, beside its user, its item and its signals: integers."""
    histories: tuple[HistoryShape, ...]
    """What is shown of the last events."""
    delays: dict[str, int | None]
    """Signal that is not known at once -> after how long it is, ms; None: each event says so."""
    refresh_h: float
    """Hours between refreshes of the whole log's rates; 0: with every event."""
    utc_offset_h: float
    """Hours from UTC to the midnight from which refreshes count."""
    numbers: tuple[str, ...] = ()
    """The same, that are no integers."""

    @classmethod
    def of(cls, spec: LogSpec, history: int, item_history: int) -> "Shape":
        shown = ("item_id", *spec.history, *spec.history_numbers, *spec.all_signals())
        histories = [HistoryShape(group="user", prefix="hist_", length=history, columns=shown)]
        histories += [
            HistoryShape(group="user", prefix=f"hist_{n}_", length=h.length, where=h.where, columns=h.columns)
            for n, h in spec.histories.items()
        ]
        if item_history:
            histories += [HistoryShape(group="item", prefix="item_hist_", length=item_history, columns=("user_id",))]
        return cls(
            groups=tuple(
                g if g.refresh_h is not None else replace(g, refresh_h=spec.refresh_h) for g in spec.all_groups()
            ),
            signals=tuple(spec.all_signals()),
            attributes=tuple(spec.history),
            numbers=tuple(spec.history_numbers),
            histories=tuple(histories),
            delays={s: round(1000 * d) if isinstance(d, int | float) else None for s, d in spec.known_after.items()},
            refresh_h=spec.refresh_h,
            utc_offset_h=spec.utc_offset_h,
        )

    def layout(self, group: Group) -> GroupLayout:
        """What is kept of each group of a kind."""
        return GroupLayout(
            name=group.name,
            keys=group.keys,
            signals=self.signals,
            first=group.name == "item",
            last=group.name == "user",
            tails={h.prefix: self._kept(h) for h in self.histories if h.group == group.name and h.length},
        )

    def refreshed(self, time: Int64s, refresh_h: float | None) -> Int64s:
        """When what is seen at some times was refreshed: it holds what was known before. int64 [N], ms."""
        if not refresh_h:
            return time
        every, offset = round(refresh_h * _HOUR_MS), round(self.utc_offset_h * _HOUR_MS)
        return (time + offset) // every * every - offset

    def horizon(self, time: int) -> int:
        """What counted before this is seen by all that comes at a time or later."""
        hours = {self.refresh_h, *(g.refresh_h for g in self.groups)}
        return min(int(self.refreshed(np.array([time]), h)[0]) for h in hours)

    def _kept(self, history: HistoryShape) -> dict[str, str]:
        types = dict.fromkeys(self.signals, "int8") | dict.fromkeys(self.numbers, "float32")
        kept = {TIME if n == "hours" else n: types.get(n, "int64") for n in history.columns}
        return kept | ({WHEN: "int64"} if history.where in self.delays else {})

    def schema(self) -> dict[str, dict[str, str]]:
        """Kind of group -> column of its files -> type."""
        return {g.name: {f.name: str(f.type) for f in self.layout(g).schema()} for g in self.groups}

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Json) -> "Shape":
        nested = {
            "groups": tuple(Group(**g | {"keys": tuple(g["keys"])}) for g in value["groups"]),
            "histories": tuple(HistoryShape(**h | {"columns": tuple(h["columns"])}) for h in value["histories"]),
        }
        return cls(**value | nested | {n: tuple(value.get(n, ())) for n in ("signals", "attributes", "numbers")})


class State:
    """What a log was counted to. It changes as events come, a chunk of them at a time."""

    def __init__(
        self,
        shape: Shape,
        folder: Path | None = None,
        runs: Mapping[str, Sequence[Path]] | None = None,
        total: Json | None = None,
        pending: StateEvents | None = None,
    ) -> None:
        """folder: where new files go; None: what is new stays in memory.

        runs: kind of group -> its files, the oldest first. total: `total_json` of then.
        pending: the last events, which are not in the state yet.
        """
        self.shape, self.pending = shape, pending
        self.groups = {
            g.name: GroupState(shape.layout(g), (runs or {}).get(g.name, ()), folder and folder / g.name)
            for g in shape.groups
        }
        total = total or {"views": 0, "positives": {}, "known": {}}
        self.total = GroupValues(
            views=np.array([total["views"]], np.int64),
            positives={s: np.array([total["positives"].get(s, 0)], np.int64) for s in shape.signals},
            known={s: np.array([total["known"].get(s, 0)], np.int64) for s in shape.signals},
            first=np.array([NONE]),
            last=np.array([NONE]),
            tails={},
        )

    def total_json(self) -> Json:
        """What the whole log was counted to."""
        total = self.total

        def numbers(counts: dict[str, Int64s]) -> dict[str, int]:
            return {s: int(n[0]) for s, n in counts.items()}

        return {"views": int(total.views[0]), "positives": numbers(total.positives), "known": numbers(total.known)}

    def all_views(self, name: str) -> tuple[Int64s, Int64s]:
        """All users (or items), ascending, and how many events each had: int64 [G]. name: user or item."""
        keys, views = self.groups[name].all_views()
        if self.pending is None:
            return keys, views
        known = self.pending.keys[name][self.pending.codes[name] >= 0]
        more, events = np.unique(known, return_counts=True)
        both, place = np.unique(np.concatenate([keys, more]), return_inverse=True)
        return both, np.bincount(place, np.concatenate([views, events]), len(both)).astype(np.int64)

    def files(self) -> dict[str, list[Path]]:
        """Kind of group -> its files, the oldest first."""
        return {n: [r.path for r in g.runs if r.path is not None] for n, g in self.groups.items()}
