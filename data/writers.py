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
    """One writer for each split and period."""

    def __init__(self, folder: Path, labels: dict[str, LabelKind]) -> None:
        self.folder, self.labels = folder, labels
        self.partitions: list[Partition] = []
        self.counts: dict[str, LabelCounts] = {}
        self._open: dict[Place, PartitionWriter] = {}

    def keep(self, partition: Partition, counts: LabelCounts) -> None:
        """Takes a partition that is written already."""
        self.partitions.append(partition)
        self.counts[partition.path] = counts

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

    def places(self) -> list[Place]:
        """Those that are open."""
        return list(self._open)

    def close(self, place: Place) -> None:
        """Ends the partition of a place. Places may be closed side by side, and beside others that are filled."""
        writer = self._open.pop(place)
        self.keep(writer.close(), writer.counts)
