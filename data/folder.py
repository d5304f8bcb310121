"""Which files of a folder are read, and the columns that the names of its folders hold.

Links are followed. A name that begins with _ or . is another program's (`_SUCCESS`, `_temporary/`,
`.ipynb_checkpoints/`) and is left out. A path is never a pattern. What is left out is listed.
"""

import re
import stat
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from coldrank.data.errors import UserError
from coldrank.data.location import is_url, named

PARQUET = (".parquet", ".parq", ".pq")
# Why the log of a Delta table is left out.
_DELTA = "a Delta table's own; the files beside it are read as they lie, also those that it has replaced"
# How Hive and Spark write null into the name of a folder.
_NULL = "__HIVE_DEFAULT_PARTITION__"
# How many names of those left out for one reason are listed.
_LISTED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """Files or folders that were not read, for one reason."""

    why: str
    """The reason."""
    count: int
    """How many."""
    names: list[str]
    """The first of them, relative to the folder; a folder's name ends with a slash."""

    def __str__(self) -> str:
        more = f" and {self.count - len(self.names):,} more" if self.count > len(self.names) else ""
        return f"{', '.join(self.names)}{more} ({self.why})"


@dataclass(slots=True)
class Folder:
    """The files under a folder that are wanted, in the order of their names, each once.

    Raises UserError for links that lead nowhere and for names that are not UTF-8.
    """

    root: Path
    """The folder."""
    wanted: Callable[[str], str]
    """Name of a file -> why it is left out, or "" to read it."""
    apart: Collection[Path] = ()
    """Files and folders that are read as something else."""
    deep: bool = True
    """Whether folders within are searched."""
    files: list[Path] = field(default_factory=list)
    """The files to read, filled in by the search."""
    refused: dict[str, list[str]] = field(default_factory=dict)
    """Why files or folders are left out -> their names, filled in by the search."""
    _seen: dict[Hashable, Path] = field(default_factory=dict)
    """Device and inode, or URL -> the first path to it."""

    def __post_init__(self) -> None:
        self._seen = {_identity(p): p for p in self.apart if p.exists()} | {_identity(self.root): self.root}
        self.files = list(self._walk(self.root))

    def leave_out(self, path: Path, why: str) -> None:
        """Notes a file or folder that is not read."""
        name = str(path.relative_to(self.root)) + ("/" if path.is_dir() else "")
        self.refused.setdefault(why, []).append(name if name.isprintable() else ascii(name))

    def named(self, name: str) -> Path:
        """The file of this name in lower case, or where it would be. Raises UserError if there are two."""
        same = [p for p in self.files if p.name.lower() == name]
        if len(same) > 1:
            raise UserError(f"{self.root}: {same[0].name} and {same[1].name}: which one? take one away")
        return same[0] if same else self.root / name

    def left_out(self) -> tuple[LeftOut, ...]:
        """What is not read, by reason."""
        return tuple(LeftOut(why=w, count=len(n), names=n[:_LISTED]) for w, n in self.refused.items())

    def left_out_note(self) -> str:
        """What is not read, as an end of an error."""
        return f"; left out: {'; '.join(map(str, self.left_out()))}" if self.refused else ""

    def _walk(self, folder: Path) -> Iterator[Path]:
        try:
            with named(folder):
                # A store may hold an object that stands for the folder itself: it has no name.
                names = sorted(filter(None, (p.name for p in folder.iterdir())))
        except OSError as error:
            raise UserError(f"{folder}: {error.strerror}") from None
        for path in (folder / n for n in names):
            if path.name[0] in "_.":
                self.leave_out(path, _DELTA if path.name == "_delta_log" else "name begins with _ or .")
                continue
            if not _is_utf8(path.name):
                raise UserError(f"{folder}: {path.name!a}: a name that is not UTF-8; rename it")
            try:
                mode = path.stat().st_mode
            except OSError as error:
                raise UserError(f"{path}: a link that leads nowhere ({error.strerror})") from None
            if stat.S_ISDIR(mode) and not self.deep:
                self.leave_out(path, "a folder")
            elif stat.S_ISDIR(mode):
                if self._is_new(path):
                    yield from self._walk(path)
            elif why := self.wanted(path.name) if stat.S_ISREG(mode) else "no file":
                if self._seen.get(_identity(path)) not in self.apart:
                    self.leave_out(path, why)
            elif self._is_new(path):
                yield path

    def _is_new(self, path: Path) -> bool:
        first = self._seen.setdefault(_identity(path), path)
        if first is path:
            return True
        if first in self.apart:
            return False
        if first not in path.parents and self._values(path) != self._values(first):
            raise UserError(f"{path}: the same as {first}, under folders that name other values")
        again = "the folder that it lies in" if first in path.parents else str(first.relative_to(self.root))
        self.leave_out(path, f"the same as {again}")
        return False

    def _values(self, path: Path) -> dict[str, str | None]:
        return folder_values(path / "file" if path.is_dir() else path, self.root)


def _identity(path: Path) -> Hashable:
    """Equal for two paths that lead to the same."""
    if is_url(path):
        return str(path)
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def wanted_endings(endings: tuple[str, ...], kind: str) -> Callable[[str], str]:
    """`Folder.wanted` for files by their endings, in any case. kind: what others are not."""
    return lambda name: "" if name.lower().endswith(endings) else f"not {kind}"


def folder_values(path: Path, root: Path) -> dict[str, str | None]:
    """The columns that the folders between `root` and a file name: `ch=c0/day=2022-05-04/` -> ch, day; None for null.

    Escapes (`%20`) are undone. Raises UserError for a column that is named twice.
    """
    values: dict[str, str | None] = {}
    for part in path.relative_to(root).parts[:-1]:
        name, is_named, text = part.partition("=")
        if not (name and is_named):
            continue
        try:
            name, text = unquote(name, errors="strict"), unquote(text, errors="strict")
        except UnicodeDecodeError:
            raise UserError(f"{path}: folder {part}: its escapes are not UTF-8") from None
        if name in values:
            raise UserError(f"{path}: two folders name the column {name!r}")
        values[name] = None if text == _NULL else text
    return values


def typed(texts: Collection[str | None]) -> tuple[pl.DataType | type[pl.DataType], Callable[[str], Any]]:
    """The one type that fits all values of a column of folders, and what turns the text of one into it.

    Integers, numbers, dates as 2022-05-04, or text. Integers with leading zeros are text, as they say more than their
    number. Null where all values are.
    """
    known = [t for t in texts if t is not None]
    if not known:
        return pl.Null, str
    if all(re.fullmatch(r"0|-?[1-9]\d*", t) for t in known):
        low, high = min(map(int, known)), max(map(int, known))
        for kind, least, most in ((pl.Int64, -(2**63), 2**63), (pl.UInt64, 0, 2**64)):
            if least <= low and high < most:
                return kind, int
    if all(re.fullmatch(r"-?(0|[1-9]\d{0,14})(\.\d+)?", t) for t in known):
        return pl.Float64, float
    return (pl.Date, date.fromisoformat) if all(map(_is_day, known)) else (pl.String, str)


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
