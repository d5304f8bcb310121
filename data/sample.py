"""Rows drawn from a split, the same ones for every run, each with a partner.

B rows of a batch, N rows of the sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from coldrank.data.batches import BatchMaker
from coldrank.data.read import Column, Raw, SampleReader, take
from coldrank.models.batch import Batch

ROWS_PER_BATCH = 2048


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of a split, the same for every run, each with a partner among them."""

    raw: Raw
    """The columns of N rows, in order of time."""
    partner: np.ndarray
    """The row of each row's partner, int64 [N], a permutation."""

    def __len__(self) -> int:
        return len(self.partner)

    def batches(self, make: BatchMaker) -> Iterator[tuple[Raw, Batch, Batch]]:
        """Raw columns, batch, and the batch of the partners, `ROWS_PER_BATCH` rows at a time."""
        for first in range(0, len(self), ROWS_PER_BATCH):
            index = np.arange(first, min(first + ROWS_PER_BATCH, len(self)))
            raw, other = (_rows(self.raw, rows) for rows in (index, self.partner[index]))
            yield raw, make(raw), make(other)


def draw(reader: SampleReader, rows: int, seed: int) -> Sample:
    """`rows` rows of a split drawn without replacement; all if it has fewer. The same for the same split and seed."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(reader.total_rows, min(rows, reader.total_rows), replace=False))
    parts, first = [], 0
    for raw in tqdm(reader.epoch(0), total=reader.batches, desc="read", unit="batch"):
        end = first + _count(raw)
        low, high = np.searchsorted(chosen, (first, end))
        parts.append(_rows(raw, chosen[low:high] - first))
        first = end
    whole = {name: _concatenate([part[name] for part in parts]) for name in parts[0]}
    return Sample(whole, rng.permutation(len(chosen)))


def _count(raw: Raw) -> int:
    column = next(iter(raw.values()))
    return len(column[1]) - 1 if isinstance(column, tuple) else len(column)


def _rows(raw: Raw, index: np.ndarray) -> Raw:
    return {name: take(column, index) for name, column in raw.items()}


def _concatenate(parts: list[Column]) -> Column:
    if not isinstance(parts[0], tuple):
        return np.concatenate([part for part in parts if not isinstance(part, tuple)])
    pairs = [part for part in parts if isinstance(part, tuple)]
    lengths = np.concatenate([np.diff(offsets) for _, offsets in pairs])
    return np.concatenate([values for values, _ in pairs]), np.concatenate([[0], np.cumsum(lengths)])
