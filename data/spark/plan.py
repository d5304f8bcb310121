"""Which tasks write which samples, and what each has to know of the state."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from coldrank.data.partitions import EqualPeriods, Periods
from coldrank.data.spark.sort import TimeChunk
from coldrank.data.state.state import Shape

_MORE_TASKS_THAN_CORES = 3


@dataclass(slots=True)
class WriteTask:
    """Samples that one task writes: of some periods, or a part of one."""

    parts: dict[int, set[str]] = field(default_factory=dict)
    """Chunk -> the periods whose events of it are written."""
    rows: int = 0
    """How many samples."""

    def add(self, period: str, chunk: int, rows: int) -> None:
        """Takes the events of a period in a chunk."""
        self.parts.setdefault(chunk, set()).add(period)
        self.rows += rows


def write_tasks(chunks: Sequence[TimeChunk], periods: Periods, *, file_rows: int, cores: int) -> list[WriteTask]:
    """The tasks in the order of their samples. A period of up to `file_rows` is of one task, which has others as well
    if they are small; a longer one is cut into several.

    cores: that run tasks.
    """
    of_period: dict[str, list[tuple[int, int]]] = {}
    for number, (chunk, first) in enumerate(zip(chunks, first_rows(chunks), strict=True)):
        for period, rows in _periods(chunk, first, periods):
            of_period.setdefault(period, []).append((number, rows))
    most = min(file_rows, sum(c.rows for c in chunks) // (_MORE_TASKS_THAN_CORES * cores) + 1)
    tasks: list[WriteTask] = []
    for period, parts in sorted(of_period.items()):
        rows = sum(n for _, n in parts)
        if not tasks or tasks[-1].rows + rows > most:
            tasks.append(WriteTask())
        # Of equal pieces.
        piece = rows / -(-rows // file_rows)
        start = tasks[-1].rows
        for number, count in parts:
            if tasks[-1].rows - start >= piece:
                tasks.append(WriteTask())
                start = 0
            tasks[-1].add(period, number, count)
    return tasks


def first_rows(chunks: Sequence[TimeChunk]) -> list[int]:
    """The number in the log of each chunk's first event."""
    return list(accumulate((c.rows for c in chunks[:-1]), initial=0))


def _periods(chunk: TimeChunk, first: int, periods: Periods) -> Iterator[tuple[str, int]]:
    """The periods of a chunk's events, and how many are of each."""
    if isinstance(periods, EqualPeriods):
        names, code = periods.of(np.zeros(chunk.rows, np.int32), first)
        rows = np.bincount(code, minlength=len(names))
    else:
        names, code = periods.of(chunk.days, first)
        rows = np.bincount(code, chunk.day_rows, len(names)).astype(np.int64)
    return ((name, int(n)) for name, n in zip(names, rows, strict=True) if n)


def seen_whole(chunks: Sequence[TimeChunk], shape: Shape) -> list[int]:
    """Of each chunk, and of what comes after the last: how many chunks before it the state holds, int [C + 1].

    All their outcomes are known to it, and all refreshes have been: the chunks from there on wait beside the state, as
    `State.pending`.
    """
    latest = np.maximum.accumulate([c.counted for c in chunks])
    horizons = [shape.horizon(time) for time in (*(c.first for c in chunks), chunks[-1].last + 1)]
    return [min(n, int(np.searchsorted(latest, horizon))) for n, horizon in enumerate(horizons)]
