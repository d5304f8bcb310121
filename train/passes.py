"""Passes over all samples of `data.fit`, then over those of new users."""

from dataclasses import dataclass
from typing import Any

from coldrank.data.batches import BatchMaker, DataFolder
from coldrank.data.errors import UserError
from coldrank.data.read import AtMost, Reader, SampleReader
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import Ranks
from coldrank.train.progress import Progress


@dataclass(frozen=True, slots=True)
class Passes:
    """`epochs` passes of the reader `all`, then, where there is a reader `cold`, `cold_passes` of that one."""

    all: Reader
    cold: Reader | None
    epochs: int
    cold_passes: int

    @classmethod
    def of(cls, config: RunConfig, data: DataFolder, make: BatchMaker, ranks: Ranks) -> "Passes":
        """Opens the readers. Raises UserError if one has no rows."""
        everything = _reader(config, data, make, ranks, None)
        only = AtMost("user_views", config.cohorts.new_user_max_views)
        cold = _reader(config, data, make, ranks, only) if config.train.cold_passes else None
        return cls(everything, cold, config.train.epochs, config.train.cold_passes)

    def is_cold(self, epoch: int) -> bool:
        """Whether a pass (0-based) is over new users alone."""
        return self.cold is not None and epoch >= self.epochs

    def reader(self, epoch: int) -> Reader:
        """The reader of a pass (0-based)."""
        return self.cold if self.cold is not None and epoch >= self.epochs else self.all

    @property
    def steps(self) -> int:
        """Steps of all passes; a step takes one batch on every rank."""
        return sum(self.reader(epoch).batches for epoch in range(self.epochs + self.cold_passes))

    def steps_before(self, progress: Progress) -> int:
        """Steps of the passes up to where a run stands."""
        return sum(self.reader(epoch).batches for epoch in range(progress.epoch)) + progress.batch

    def facts(self, progress: Progress) -> dict[str, Any]:
        """fit_rows: of a pass over all. samples: that all ranks have read so far."""
        part = self.reader(progress.epoch).rows_before(progress.batch)
        before = sum(self.reader(epoch).total_rows for epoch in range(progress.epoch))
        return {"fit_rows": self.all.total_rows, "samples": before + part}


def _reader(config: RunConfig, data: DataFolder, make: BatchMaker, ranks: Ranks, only: AtMost | None) -> SampleReader:
    reader = SampleReader(
        data.files(config.data.fit),
        make.columns(training=True),
        config.data.batch_size,
        global_batch_size=config.data.global_batch_size,
        shuffle_rows=config.data.shuffle_rows,
        in_time=config.data.order == "time",
        seed=config.seed,
        rank=ranks.rank,
        world_size=ranks.world_size,
        only=only,
    )
    if not reader.total_rows:
        raise UserError(f"{data.path}: no rows{' of new users' if only else ''} to train on")
    return reader
