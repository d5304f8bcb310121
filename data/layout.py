"""Which rows make batch n of each rank: a function of n alone.

So a reader can begin anywhere and knows what the other ranks do. The rows are a line of `total`, cut into stretches of
whole steps. A rank's rows of a stretch lie side by side.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np


class Picks(NamedTuple):
    """A rank's rows of a stretch."""

    first: int
    """The first of them in the line."""
    rows: int
    """How many they are."""
    steps: list[np.ndarray]
    """For each step, which of these rows it takes, int64 [B], counted from `first`."""


class BatchLayout(Protocol):
    """Which rows each step of a pass takes, on every rank."""

    @property
    def steps(self) -> int:
        """Steps of a pass, the same on every rank; a rank may have no row in some."""
        ...

    def place(self, step: int) -> tuple[int, int]:
        """The stretch of a step, and its number there."""
        ...

    def sizes(self, step: int) -> tuple[int, ...]:
        """Rows of every rank in a step."""
        ...

    def rows_before(self, step: int) -> int:
        """Rows of all ranks in the steps before."""
        ...

    def picks(self, stretch: int, rank: int, seed: list[int] | None) -> Picks:
        """What a rank takes of a stretch. seed: seeds the shuffling; None: in order."""
        ...


@dataclass(frozen=True, slots=True)
class RankBatches:
    """Batches of as many rows on every rank. A stretch is a buffer for each rank, shuffled by itself.

    The last stretch is shared out evenly.
    """

    total: int
    """All rows."""
    batch: int
    """Rows of a rank's batch."""
    buffer: int
    """Rows of a rank's buffer, a multiple of `batch`."""
    ranks: int
    """Number of ranks."""

    @property
    def steps(self) -> int:
        full, rest = divmod(self.total, self.buffer * self.ranks)
        return full * (self.buffer // self.batch) - (-rest // (self.batch * self.ranks))

    def place(self, step: int) -> tuple[int, int]:
        return divmod(step, self.buffer // self.batch)

    def sizes(self, step: int) -> tuple[int, ...]:
        stretch, k = self.place(step)
        counts = np.diff(self._bounds(stretch))
        return tuple(np.clip(counts - k * self.batch, 0, self.batch).tolist())

    def rows_before(self, step: int) -> int:
        stretch, k = self.place(step)
        before = min(stretch * self.buffer * self.ranks, self.total)
        return before + int(np.minimum(np.diff(self._bounds(stretch)), k * self.batch).sum())

    def picks(self, stretch: int, rank: int, seed: list[int] | None) -> Picks:
        bounds = self._bounds(stretch)
        first, count = int(bounds[rank]), int(bounds[rank + 1] - bounds[rank])
        rng = None if seed is None else np.random.default_rng([*seed, 1 + stretch * self.ranks + rank])
        order = np.arange(count) if rng is None else rng.permutation(count)
        steps = -(-int(np.diff(bounds).max()) // self.batch)
        return Picks(first, count, [order[k * self.batch : (k + 1) * self.batch] for k in range(steps)])

    def _bounds(self, stretch: int) -> np.ndarray:
        """Where the ranks' parts begin and end in the line, int64 [ranks + 1]."""
        first = min(stretch * self.buffer * self.ranks, self.total)
        rows = min(self.buffer * self.ranks, self.total - first)
        return first + rows * np.arange(self.ranks + 1) // self.ranks


@dataclass(frozen=True, slots=True)
class SharedBatches:
    """Batches of all ranks together that have the same rows whatever the number of ranks.

    A stretch is one buffer, cut into as many lanes as a batch has rows, each shuffled by itself. Step k takes the k-th
    row of every lane. A rank has lanes that lie side by side, so it decodes no rows but its own. In the last step not
    every lane has a row left.
    """

    total: int
    """All rows."""
    batch: int
    """Rows of the batches of all ranks together."""
    buffer: int
    """Rows of a stretch, a multiple of `batch`."""
    ranks: int
    """Number of ranks."""

    @property
    def steps(self) -> int:
        return -(-self.total // self.batch)

    def place(self, step: int) -> tuple[int, int]:
        return divmod(step, self.buffer // self.batch)

    def sizes(self, step: int) -> tuple[int, ...]:
        rows = min(self.batch, self.total - step * self.batch)
        return tuple(np.diff(rows * self._lanes() // self.batch).tolist())

    def rows_before(self, step: int) -> int:
        return min(step * self.batch, self.total)

    def picks(self, stretch: int, rank: int, seed: list[int] | None) -> Picks:
        first = stretch * self.buffer
        rows = min(self.buffer, self.total - first)
        steps = -(-rows // self.batch)
        last = rows - (steps - 1) * self.batch
        low, high = self._lanes()[rank : rank + 2]
        lanes = np.arange(low, high + 1)
        starts = (steps - 1) * lanes + last * lanes // self.batch
        # Every rank draws for all lanes: which lanes it has changes nothing.
        rng = None if seed is None else np.random.default_rng([*seed, 1 + stretch])
        drawn = np.arange(steps) + np.zeros((self.batch, 1)) if rng is None else rng.random((self.batch, steps))
        drawn = drawn[low:high]
        short = np.diff(starts) < steps
        drawn[short, -1] = steps  # is after all others
        index = (starts[:-1, None] - starts[0] + drawn.argsort(1)).T
        taken = [*index[:-1], index[-1][~short]]
        return Picks(first + int(starts[0]), int(starts[-1] - starts[0]), taken)

    def _lanes(self) -> np.ndarray:
        """Where the ranks' lanes begin and end, int64 [ranks + 1]."""
        return self.batch * np.arange(self.ranks + 1) // self.ranks
