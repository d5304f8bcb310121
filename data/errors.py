"""The errors that the commands turn into one line."""

import difflib
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

# Names that are listed where none is near the one that was given.
_LISTED = 6
# How long a rank waits for the first one to find the same mistake.
_HEAD_START_S = 5.0


class UserError(Exception):
    """A mistake of the caller: printed in one line."""

    exit_code = 2
    """Of the command that it ends."""


class RowError(UserError):
    """A mistake in a row of a file."""

    def __init__(self, where: str, row: int, what: str) -> None:
        """row: counted from 1."""
        super().__init__(f"{where}, row {row}: {what}")
        self.where, self.row, self.what = where, row, what

    def __reduce__(self) -> tuple[type["RowError"], tuple[str, int, str]]:
        return RowError, (self.where, self.row, self.what)

    def moved(self, rows: int) -> "RowError":
        """The same mistake where that many rows of the file lie before those that were looked at."""
        return RowError(self.where, self.row + rows, self.what)


class Preempted(Exception):
    """The run wrote a checkpoint and made way; started again, it goes on from there."""


def meant(name: str, names: Iterable[str]) -> str:
    """What to write in place of a name that is not among `names`, in words: the nearest of them, or the first few."""
    had = list(names)
    if near := difflib.get_close_matches(name, had, 1):
        return f"did you mean {near[0]!r}?"
    more = len(had) - _LISTED
    return f"there are {', '.join(had[:_LISTED])}" + (f" and {more} more" if more > 0 else "")


def report(line: str) -> None:
    """Prints an error to standard error, in one line; of the ranks of a host that make the same mistake, once."""
    line = line.replace("\n", "\\n")  # the name of a file may hold one
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file and _first_rank_reports(Path(file), line):
        return
    print(line, file=sys.stderr)


def _first_rank_reports(file: Path, line: str) -> bool:
    """Writes the error for torchrun's own report; whether the host's first rank wrote the same, or does within seconds.

    file: `.../LOCAL_RANK/error.json`, a place that torchrun gives every rank.
    """
    message = {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}
    file.write_text(json.dumps({"message": message}))
    first = file.parent.parent / "0" / file.name
    until = time.monotonic() + _HEAD_START_S
    while file != first and time.monotonic() < until:
        if first.exists() and json.dumps(line) in first.read_text():
            return True
        time.sleep(0.05)
    return False
