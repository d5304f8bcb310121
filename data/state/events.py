"""What a state takes of events, and keeps of those that not all that comes will see whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
_TIME, _KEYS, _HAS, _KNOWN, _SIGNALS, _ATTRIBUTES = "time", "key:", "has:", "known:", "signal:", "attribute:"


@dataclass(frozen=True, kw_only=True, slots=True)
class StateEvents:
    """N events in order."""

    time: Int64s
    """Milliseconds since the epoch, int64 [N], ascending."""
    keys: Mapping[str, Int64s]
    """Key of a group -> its value, int64 [N]; any where unknown."""
    codes: Mapping[str, NDArray[np.int32]]
    """Key of a group -> 0, 1, ... by value, int32 [N]; -1 where unknown."""
    signals: Mapping[str, NDArray[np.int8]]
    """Signal -> its outcome, int8 [N]; -1 where unknown."""
    attributes: Mapping[str, NDArray[Any]]
    """Attribute of histories -> its value, int64 [N]; -1 where unknown."""
    known: Mapping[str, Int64s]
    """Signal with a delay -> when its outcome is known, int64 [N], ms."""

    def __len__(self) -> int:
        return len(self.time)

    def part(self, start: int, end: int) -> "StateEvents":
        """The events from one to before another, with their codes."""
        return self.only(slice(start, end))

    def only(self, rows: NDArray[np.bool_] | slice) -> "StateEvents":
        """Some events, with their codes. rows: bool [N], or a slice."""
        fields = {n: {k: v[rows] for k, v in getattr(self, n).items()} for n in self.__slots__ if n != "time"}
        return StateEvents(time=self.time[rows], **fields)

    def then(self, *later: "StateEvents") -> "StateEvents":
        """These events and later ones, in order."""
        if not later:
            return self

        def joined(field: str) -> dict[str, NDArray[Any]]:
            ours, theirs = getattr(self, field), [getattr(part, field) for part in later]
            return {n: np.concatenate([of, *(part[n] for part in theirs)]) for n, of in ours.items()}

        keys, codes = joined("keys"), joined("codes")
        return StateEvents(
            time=np.concatenate([self.time, *(part.time for part in later)]),
            keys=keys,
            codes={n: _codes(keys[n], codes[n] >= 0) for n in keys},
            **{n: joined(n) for n in ("signals", "attributes", "known")},
        )

    def write(self, path: Path) -> None:
        """An Arrow file."""
        columns: dict[str, Any] = {_TIME: self.time}
        columns |= {_HAS + n: of >= 0 for n, of in self.codes.items()}
        for prefix, values in (
            (_KEYS, self.keys),
            (_SIGNALS, self.signals),
            (_ATTRIBUTES, self.attributes),
            (_KNOWN, self.known),
        ):
            columns |= {prefix + n: v for n, v in values.items()}
        table = pa.table(columns)
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)

    @classmethod
    def read(cls, path: Path) -> "StateEvents":
        """A file of `write`. Raises OSError and Arrow's errors."""
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()

        def values(prefix: str) -> dict[str, NDArray[Any]]:
            names = [n for n in table.column_names if n.startswith(prefix)]
            return {n.removeprefix(prefix): table.column(n).to_numpy() for n in names}

        keys, has = values(_KEYS), values(_HAS)
        return cls(
            time=table.column(_TIME).to_numpy(),
            keys=keys,
            codes={n: _codes(of, has[n]) for n, of in keys.items()},
            signals=values(_SIGNALS),
            attributes=values(_ATTRIBUTES),
            known=values(_KNOWN),
        )


def _codes(keys: Int64s, known: NDArray[np.bool_]) -> NDArray[np.int32]:
    codes = np.full(len(keys), -1, np.int32)
    codes[known] = np.unique(keys[known], return_inverse=True)[1]
    return codes
