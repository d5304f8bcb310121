"""The book of a prepared folder: what its state is of, which files hold it, and what its samples were counted to.

`DATA/state/`: a folder a kind of group with its sorted files (`state.run`), the times of all events, and the book,
JSON. The manifest names the files that count, so that samples and state change in one stroke.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldrank.data.errors import UserError
from coldrank.data.json_files import read_object
from coldrank.data.partitions import LabelCounts
from coldrank.data.state.events import StateEvents
from coldrank.data.state.state import Shape, State
from coldrank.data.whole import Whole

Json = dict[str, Any]
FORMAT = 1
_BOOK, _TIMES = Path("state", "book", "part-0.json"), Path("state", "times")
_PENDING = Path("state", "pending", "part-0.arrow")
_ITEMS = Path("state", "items", "part-0.arrow")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """What a state is of. Paths are relative to the data folder."""

    shape: Shape
    """What is kept."""
    total: Json
    """What the whole log was counted to."""
    runs: dict[str, list[str]]
    """Kind of group -> its files, the oldest first."""
    pending: list[str]
    """The file of the last events, which are not in the state yet; empty: there are none."""
    times: list[str]
    """Files of the times of all events."""
    items: list[str]
    """The file of what negatives are drawn from; empty: there are none."""
    whole: Whole
    """The log."""
    labels: dict[str, LabelCounts]
    """Path of a partition -> its labels."""
    origin: Json
    """What samples are made by: arguments, columns, types; what is appended has the same."""
    files: list[str]
    """Digests of the files that were read."""
    late: int
    """Events that came after later ones had been prepared, and were left out."""

    def to_json(self) -> Json:
        return {
            "format": FORMAT,
            "shape": self.shape.to_json(),
            "total": self.total,
            "runs": self.runs,
            "pending": self.pending,
            "times": self.times,
            "items": self.items,
            "whole": self.whole.to_json(),
            "labels": {path: counts.to_json() for path, counts in self.labels.items()},
            "origin": self.origin,
            "files": self.files,
            "late": self.late,
        }

    @classmethod
    def from_json(cls, value: Json) -> "Ledger":
        return cls(
            shape=Shape.from_json(value["shape"]),
            whole=Whole.from_json(value["whole"]),
            labels={path: LabelCounts(**counts) for path, counts in value["labels"].items()},
            items=value.get("items", []),  # folders of before have none
            **{n: value[n] for n in ("total", "runs", "pending", "times", "origin", "files", "late")},
        )

    def state(self, data: Path, folder: Path | None = None) -> State:
        """The state. data: the prepared folder. folder: where new files go; None: what is new stays in memory.

        Raises UserError for a file that is missing or damaged.
        """
        for name in (n for names in (*self.runs.values(), self.pending, self.items) for n in names):
            if not (data / name).is_file():
                raise UserError(f"{data / name}: no such file: the state is not whole; prepare the data anew")
        try:
            runs = {group: [data / n for n in names] for group, names in self.runs.items()}
            pending = StateEvents.read(data / self.pending[0]) if self.pending else None
            return State(self.shape, folder, runs, self.total, pending)
        except (OSError, ValueError) as error:
            raise UserError(f"{data / 'state'}: is damaged ({error}); prepare the data anew") from None


def read_ledger(data: Path, manifest: Json) -> Ledger:
    """The book of a prepared folder. Raises UserError if there is none, or if it is of another format."""
    named = manifest.get("state")
    if not isinstance(named, dict) or not isinstance(named.get("book"), str):
        raise UserError(f"{data}: was prepared without a state, by an older version; prepare it anew")
    if named.get("format") != FORMAT:
        raise UserError(
            f"{data}: its state is of format {named.get('format')!r}; this version reads format {FORMAT}:"
            " prepare the data anew"
        )
    path = data / named["book"]
    try:
        return Ledger.from_json(read_object(path))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: is damaged ({type(error).__name__}: {error}); prepare the data anew") from None


def put_state(
    place: Callable[[Path], Path],
    staged: Path,
    state: State,
    make: Callable[[dict[str, list[str]], list[str], list[str], list[str]], Ledger],
    kept_times: list[str],
) -> Json:
    """Gives a state its place; returns the manifest's entry.

    place: gives a staged file its place. make: the book, from the files of the groups, of what waits, of the times,
    of the items.
    kept_times: files of times that stay as they are.
    """
    runs: dict[str, list[str]] = {}
    for group, paths in state.files().items():
        runs[group] = [_placed(place, staged, path) for path in paths]
    pending = []
    if state.pending is not None:
        state.pending.write(staged / _PENDING)
        pending = [str(place(_PENDING))]
    new_times = staged / _TIMES / "part-0.bin"
    times = kept_times + ([str(place(_TIMES / "part-0.bin"))] if new_times.is_file() else [])
    items = [str(place(_ITEMS))] if items_file(staged).is_file() else []
    ledger = make(runs, pending, times, items)
    (staged / _BOOK).parent.mkdir(parents=True, exist_ok=True)
    (staged / _BOOK).write_text(json.dumps(ledger.to_json()) + "\n")
    book = str(place(_BOOK))
    files = [*(n for names in runs.values() for n in names), *pending, *times, *items, book]
    return {"format": FORMAT, "book": book, "files": files, "schema": ledger.shape.schema(), "late": ledger.late}


def _placed(place: Callable[[Path], Path], staged: Path, path: Path) -> str:
    """Where a file of the state lies in the end: one of before stays."""
    if path.is_relative_to(staged):
        return str(place(path.relative_to(staged)))
    return str(Path(*path.parts[-3:]))


def times_file(staged: Path) -> Path:
    """Where the times of new events are staged."""
    return staged / _TIMES / "part-0.bin"


def items_file(staged: Path) -> Path:
    """Where is staged what negatives are drawn from."""
    return staged / _ITEMS
