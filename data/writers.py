"""The partitions that are being written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coldrank.data.log import LabelKind
from coldrank.data.partitions import LabelCounts, Partition, PartitionWriter, Place
from coldrank.data.samples import SampleBuilder


class Writers:
    """One writer for each split and period; what is known to be whole is closed."""

    def __init__(self, folder: Path, labels: dict[str, LabelKind]) -> None:
        self.folder, self.labels = folder, labels
        self._open: dict[Place, PartitionWriter] = {}
        self._partitions: list[Partition] = []
        self._counts: dict[str, LabelCounts] = {}

    def keep(self, partition: Partition, counts: LabelCounts) -> None:
        """Takes a partition that is written already."""
        self._partitions.append(partition)
        self._counts[partition.path] = counts

    def open(self, place: Place, schema: pa.Schema) -> PartitionWriter:
        """The writer of a place."""
        if place not in self._open:
            self._open[place] = PartitionWriter(self.folder, place, schema, self.labels)
        return self._open[place]

    def add(self, place: Place, samples: pa.Table) -> None:
        """Writes samples that are later than all before."""
        writer, first = self.open(place, samples.schema), 0
        while first < len(samples):
            some = samples.slice(first, writer.room)
            writer.add(some)
            first += len(some)

    def fill(
        self, place: Place, samples: SampleBuilder, rows: NDArray[np.int64], wrote: Callable[[int], object]
    ) -> None:
        """Makes and writes the samples of some events, a row group at a time. Places may be filled side by side."""
        writer, first = self.open(place, samples.schema), 0
        while first < len(rows):
            some = rows[first : first + writer.room]
            writer.add(samples.table(some))
            wrote(len(some))
            first += len(some)

    def close_done(self, last: dict[str, int], chunk: int) -> None:
        """Closes the partitions of periods that no later chunk has events of. last: period -> its last chunk."""
        self._close([place for place in self._open if last[place[1]] <= chunk])

    def close_all_but(self, periods: set[str]) -> None:
        """Closes the partitions of all other periods."""
        self._close([place for place in self._open if place[1] not in periods])

    def finish(self) -> tuple[list[Partition], dict[str, LabelCounts]]:
        """Closes all; the partitions, and the labels of each by its path."""
        self._close(list(self._open))
        return self._partitions, self._counts

    def _close(self, places: list[Place]) -> None:
        for place in places:
            writer = self._open.pop(place)
            self.keep(writer.close(), writer.counts)
