"""What a side of benchmarks/throughput.py is, and what a piece of its work takes."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from coldrank.data.batches import DataFolder


class Cost(NamedTuple):
    """Seconds: of the CPU, all threads of the process and its ended children; and of the clock."""

    cpu: float
    wall: float


@dataclass(frozen=True, slots=True)
class Job:
    """What a side is to train: work A or B, or C, the arm `config` over data of one's own. folder: for its files."""

    side: str
    work: str
    data: DataFolder
    batch: int
    folder: Path
    config: str = ""


class Side(Protocol):
    """Something that trains."""

    def step(self, steps: int) -> Cost:
        """Steps over batches that are there already."""
        ...

    def whole(self, steps: int) -> Cost:
        """A training of so many steps, from Parquet, start and end included."""
        ...


def cost_of(work: Callable[[], object]) -> Cost:
    """Does it once."""
    wall, cpu = time.perf_counter(), _cpu()
    work()
    return Cost(_cpu() - cpu, time.perf_counter() - wall)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)
