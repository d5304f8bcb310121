"""What a side of benchmarks/throughput.py is, and what a piece of its work takes."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from coldrank.data.batches import DataFolder


class Cost(NamedTuple):
    """Seconds that some work took."""

    cpu: float
    """Of the CPU: all threads of the process and its ended children."""
    wall: float
    """Of the clock."""


@dataclass(frozen=True, slots=True)
class SideJob:
    """What a side is to train."""

    side: str
    """The side."""
    work: str
    """A, B or C."""
    data: DataFolder
    """The samples."""
    batch: int
    """Samples of a batch."""
    folder: Path
    """For the side's files."""
    config: str = ""
    """The arm of work C."""


class TrainingSide(Protocol):
    """Something that trains."""

    def step(self, steps: int) -> Cost:
        """Steps over batches that are there already."""
        ...

    def whole(self, steps: int) -> Cost:
        """A training of so many steps, from Parquet, start and end included."""
        ...


def cost_of(work: Callable[[], object]) -> Cost:
    """What some work takes, done once."""
    wall, cpu = time.perf_counter(), _cpu()
    work()
    return Cost(_cpu() - cpu, time.perf_counter() - wall)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
