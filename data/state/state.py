"""The state of a log: what all its groups were counted to, up to a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coldrank.data.asof import NONE
from coldrank.data.log import Group, LogSpec
from coldrank.data.state.groups import GroupLayout, GroupState, GroupValues
from coldrank.data.state.run import Int64s

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What a state is of."""

    groups: tuple[Group, ...]
    """Parents before children."""
    signals: tuple[str, ...]
    """What is counted."""
    attributes: tuple[str, ...]
    """What histories hold of an event, beside its item and its signals."""
    history: int
    """Longest history of a user, in events."""
    item_history: int
    """Longest history of an item, in events; 0: none."""

    @classmethod
    def of(cls, spec: LogSpec, history: int, item_history: int) -> "Shape":
        return cls(
            groups=spec.all_groups(),
            signals=tuple(spec.all_signals()),
            attributes=tuple(spec.history),
            history=history,
            item_history=item_history,
        )

    def layout(self, group: Group) -> GroupLayout:
        """What is kept of each group of a kind."""
        tail: dict[str, str] = {}
        if group.name == "user" and self.history:
            tail = dict.fromkeys(("item_id", *self.attributes), "int64") | dict.fromkeys(self.signals, "int8")
        elif group.name == "item" and self.item_history:
            tail = {"user_id": "int64"}
        return GroupLayout(
            name=group.name,
            keys=group.keys,
            signals=self.signals,
            first=group.name == "item",
            last=group.name == "user",
            tail=tail,
        )

    def schema(self) -> dict[str, dict[str, str]]:
        """Kind of group -> column of its files -> type."""
        return {g.name: {f.name: str(f.type) for f in self.layout(g).schema()} for g in self.groups}

    def to_json(self) -> Json:
        groups = [{"keys": list(g.keys), "parent": g.parent, "smoothing": g.smoothing} for g in self.groups]
        return {
            "groups": groups,
            "signals": list(self.signals),
            "attributes": list(self.attributes),
            "history": self.history,
            "item_history": self.item_history,
        }

    @classmethod
    def from_json(cls, value: Json) -> "Shape":
        groups = tuple(
            Group(keys=tuple(g["keys"]), parent=g["parent"], smoothing=g["smoothing"]) for g in value["groups"]
        )
        return cls(
            groups=groups,
            signals=tuple(value["signals"]),
            attributes=tuple(value["attributes"]),
            history=value["history"],
            item_history=value["item_history"],
        )


class State:
    """What a log was counted to. It changes as events come, a chunk of them at a time."""

    def __init__(
        self,
        shape: Shape,
        folder: Path | None = None,
        runs: Mapping[str, Sequence[Path]] | None = None,
        total: Json | None = None,
    ) -> None:
        """folder: where new files go; None: what is new stays in memory.

        runs: kind of group -> its files, the oldest first. total: `total_json` of then.
        """
        self.shape = shape
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
            tail_lengths=np.zeros(1, np.int64),
            tail={},
        )

    def total_json(self) -> Json:
        """What the whole log was counted to."""
        total = self.total

        def numbers(counts: dict[str, Int64s]) -> dict[str, int]:
            return {s: int(n[0]) for s, n in counts.items()}

        return {"views": int(total.views[0]), "positives": numbers(total.positives), "known": numbers(total.known)}

    def files(self) -> dict[str, list[Path]]:
        """Kind of group -> its files, the oldest first."""
        return {n: [r.path for r in g.runs if r.path is not None] for n, g in self.groups.items()}
