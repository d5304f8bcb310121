"""What the tasks of a preparation on Spark know of it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from coldrank.data.arrow_files import read_frame, write_frame
from coldrank.data.columns import ColumnPlan
from coldrank.data.errors import UserError
from coldrank.data.events import Events, as_events, static_table
from coldrank.data.log import EventLog
from coldrank.data.manifest import table_ids
from coldrank.data.state.state import Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSizes:
    """What a task holds at most. Only `file_rows` shows in what is written."""

    read_rows: int = 1 << 20
    """Rows that a task reads of a file."""
    chunk_rows: int = 1 << 18
    """Events of a chunk, unless one second has more."""
    file_rows: int = 1 << 21
    """Samples of a file, about: a period with more is cut into several."""
    state_rows: int = 1 << 21
    """Rows of a part of the state, about, before any is counted together."""


@dataclass(kw_only=True, slots=True)
class SparkJob:
    """A preparation. Its folder lies where the driver and all executors see it."""

    log: EventLog
    """The log without files and tables."""
    plan: list[ColumnPlan]
    """What is computed from its rows."""
    shape: Shape
    """What the state is of."""
    staged: Path
    """Where everything is written."""
    tables: dict[str, Path]
    """users, items -> the files of their tables."""
    sizes: TaskSizes
    """How much a task holds."""
    keep_duplicates: bool
    """Whether equal rows are events of their own."""
    kinds: Mapping[str, pl.DataType] = field(default_factory=dict)
    """Column -> its type over all files."""

    @classmethod
    def start(
        cls, log: EventLog, plan: list[ColumnPlan], shape: Shape, staged: Path, sizes: TaskSizes, keep: bool
    ) -> "SparkJob":
        """Writes the tables for all tasks. keep: duplicates."""
        tables = {}
        for name, table in (("users", log.users), ("items", log.items)):
            if table is not None:
                tables[name] = staged / "tables" / f"{name}.arrow"
                tables[name].parent.mkdir(exist_ok=True)
                write_frame(table, tables[name])
                key = name.removesuffix("s")
                write_frame(static_table(table, f"{key}_id", f"{key} features"), _static(tables[name]))
                write_frame(pl.DataFrame({"id": table_ids(log, key)}), _ids(tables[name]))
        log = replace(log, files=(), users=None, items=None)
        return cls(log=log, plan=plan, shape=shape, staged=staged, tables=tables, sizes=sizes, keep_duplicates=keep)

    def with_tables(self) -> EventLog:
        """The log with the tables, mapped."""
        found = {name: read_frame(path) for name, path in self.tables.items()}
        return replace(self.log, users=found.get("users"), items=found.get("items"))

    def static_tables(self) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
        """The tables of users and of items as they are written, mapped; None where there is none."""
        users, items = (read_frame(_static(self.tables[n])) if n in self.tables else None for n in ("users", "items"))
        return users, items

    def ids(self, key: str) -> pl.Series:
        """The ids of the table of users or items; none where there is no table. key: user or item."""
        path = self.tables.get(f"{key}s")
        return pl.Series([], dtype=pl.Int64) if path is None else read_frame(_ids(path))["id"]

    def new(self, folder: str, number: int, ending: str = "") -> Path:
        """A new place for what a task writes. A task that Spark runs again gets another."""
        self.check_shared()
        path = self.staged / folder / f"{number}-{uuid.uuid4().hex}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def check_shared(self) -> None:
        """Raises UserError where the folder of the driver is not seen."""
        if not self.staged.is_dir():
            import socket

            raise UserError(
                f"--out {self.staged.parent}: an executor on {socket.gethostname()} does not see the driver's folder;"
                " give a folder of storage that all machines share"
            )

    def events(self, path: Path, *, coded: bool = True) -> Events:
        """A chunk. coded: whether with the codes of its keys."""
        return as_events(read_frame(path), self.log, self.plan, coded=coded)


def _static(path: Path) -> Path:
    return path.with_suffix(".static.arrow")


def _ids(path: Path) -> Path:
    return path.with_suffix(".ids.arrow")
