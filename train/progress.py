"""Where a run stands, and what it trains on from one test to the next."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True, slots=True)
class Progress:
    """Where a run stands: steps done, epoch, batches taken from the epoch by each of `world_size` ranks, and the
    seconds so far. data: digest of the manifest of the data that it reads.

    pass_done: whether the epoch's last batch is taken. Of a stream of periods: period: the one that is or was trained
    on last; ends: period -> step of its last batch, once that is done with; partitions: what was read of the data, to
    know it again.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    world_size: int = 1
    seconds: float = 0.0
    data: str = ""
    pass_done: bool = False
    period: str = ""
    ends: dict[str, int] = field(default_factory=dict)
    partitions: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stage:
    """What is trained on between two tests: a period, or the whole warm part. periods: their names, in order.
    partitions: of the manifest, in order of time. scored: before it is trained on. shuffled: else in order of time."""

    periods: tuple[str, ...]
    partitions: tuple[dict[str, Any], ...]
    scored: bool
    shuffled: bool

    @property
    def name(self) -> str:
        """Its last period."""
        return self.periods[-1]
