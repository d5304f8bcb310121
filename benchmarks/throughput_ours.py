"""coldrank as a side of benchmarks/throughput.py: its trainer from end to end, and its steps."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from throughput_cost import Cost, SideJob, cost_of
from throughput_data import arm, of_steps

from coldrank.data.batches import DataFolder
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader
from coldrank.models.batch import Batch
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import Ranks, process_group
from coldrank.train.load import load
from coldrank.train.run import Run, build
from coldrank.train.trainer import train


class Ours:
    """An arm over prepared data. folder: for run folders."""

    def __init__(self, config: RunConfig, data: DataFolder, ranks: Ranks, folder: Path) -> None:
        self.config, self.data, self.ranks, self.folder = config, data, ranks, folder
        self.ready: tuple[Run, list[Batch]] | None = None

    def step(self, steps: int) -> Cost:
        """Steps over batches that are ready, in order of time."""
        if self.ready is None:
            run = build(self.config, self.data, self.ranks)
            fit_encoder(run.encoder, self.data.files(self.config.data.fit))
            reader = SampleReader(
                self.data.files(self.config.data.fit), run.make.columns(), self.config.data.batch_size
            )
            self.ready = run, list(map(run.make, itertools.islice(reader.epoch(0), min(steps, 16))))
        run, batches = self.ready
        _train(run, batches[:2])
        return cost_of(lambda: _train(run, [batches[n % len(batches)] for n in range(steps)]))

    def whole(self, steps: int) -> Cost:
        """`coldrank train` of so many steps."""
        config, out = of_steps(self.config, steps), self.folder / "run"
        return cost_of(lambda: train(config, self.data, out, self.ranks, fresh=True, diff=""))


def _train(run: Run, batches: list[Batch]) -> None:
    for step, batch in enumerate(batches):
        run.optimizers.begin_step(step, len(batches))
        run.model(batch).loss.backward()
        run.optimizers.end_step()


@contextmanager
def make(job: SideJob) -> Iterator[Ours]:
    """Ours, by one thread of torch, one of Arrow, and the one that reads ahead."""
    pa.set_cpu_count(1)
    config = (
        load(job.config, ["train.threads=1", "train.checkpoint_every=0"]) if job.config else arm(job.work, job.batch)
    )
    with process_group() as ranks:
        yield Ours(config, job.data, ranks, job.folder)
