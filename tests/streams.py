"""Streams of a few short periods, for tests of the methods that keep models of earlier ones."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import polars as pl
import torch
from retrieving import DAYS
from torch import Tensor, nn
from torch.func import functional_call

from coldrank.data.batches import DataFolder, batches
from coldrank.models.batch import Batch
from coldrank.models.embeddings import EmbeddingStage
from coldrank.models.two_tower import TwoTowerModule
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import Ranks
from coldrank.train.hooks.hook import Hook
from coldrank.train.hooks.past import task_of
from coldrank.train.hooks.rows import TableRows
from coldrank.train.passes import Passes
from coldrank.train.progress import Progress, Stage
from coldrank.train.run import Run
from coldrank.train.stepping import Taken
from coldrank.train.trainer import train

STAGE = Stage((DAYS[0],), (), scored=False, shuffled=False)


def streamed(base: RunConfig, *hooks: Hook) -> RunConfig:
    """The config on a stream of `DAYS`, from the second on, by steps of 64 rows."""
    data = replace(base.data, order="time")
    t = replace(base.train, mode="periods", first_period=DAYS[1], look_back=(), checkpoint_every=0)
    return replace(base, hooks=hooks, data=data, train=t)


def hashed(base: RunConfig) -> RunConfig:
    """With tables in which every row belongs to ids, so that several runs may read one batch."""
    return replace(base, tables=tuple(replace(t, mapping="hash", min_count=1) for t in base.tables))


def some(run: Run, count: int) -> list[Batch]:
    """The first batches of a pass."""
    reader = Passes.of(run.config, run.data, run.make, run.ranks).reader(0)
    with batches(reader, run.make, 2) as source:
        return list(islice(source, count))


def stepped(run: Run, of: list[Batch]) -> Iterator[float]:
    """Trains on batches; the loss of each."""
    for number, batch in enumerate(of):
        run.begin_step(Taken(batch, 0, number + 1, run.dynamic_ids(batch)), number, 100)
        loss = run.model(batch).loss
        loss.backward()
        run.end_step()
        yield loss.item()


def period(run: Run, of: list[Batch], step: int) -> list[float]:
    """A period of these batches, from step `step` of the run on; its losses."""
    progress = Progress(step=step)
    for hook in run.hooks:
        hook.begins(run, STAGE, progress)
    losses = list(stepped(run, of))
    for hook in run.hooks:
        hook.ends(run, STAGE, progress)
    return losses


def cut_and_whole(config: RunConfig, folder: Path, out: Path, ranks: Ranks, cuts: tuple[int, ...]) -> None:
    """Raises AssertionError if a stream that was stopped after so many steps ends otherwise than one that was not."""
    data = DataFolder.open(folder)
    for name, steps in (("whole", (0,)), ("cut", (*cuts, 0))):
        for most in steps:
            part = replace(config, train=replace(config.train, steps=most))
            train(part, data, out / name, ranks, fresh=False, diff="")
    one, other = ((out / name / "predictions-next.parquet").read_bytes() for name in ("whole", "cut"))
    assert one == other
    assert pl.read_parquet(out / "cut" / "predictions-next.parquet").height > 0


def whole_tables(tables: Mapping[str, TableRows]) -> dict[str, Tensor]:
    """Tables of one rank, in float64."""
    return {name: torch.cat([part for part, _ in rows.parts]).double() for name, rows in tables.items()}


def by_tables(run: Run, tables: dict[str, Tensor], batch: Batch, dense: dict[str, Tensor] | None = None) -> Tensor:
    """The loss of a batch in float64, with whole tables, and dense weights by their names in the task (None: the run's
    own), in the place of the run's; gradients reach both."""
    task = task_of(run)
    own = {name: p.detach().double() for name, p in task.named_parameters() if name.startswith("ranker.")}
    own |= dense or {}
    stage = EmbeddingStage(run.encoder.features).double()
    wide = replace(batch, dense=batch.dense.double(), labels=batch.labels.double(), unpooled=None)
    places = {f"ebc.embedding_bags.{name}.weight": rows for name, rows in tables.items()}
    # TorchRec's collection gives float32, whatever its tables are.
    embedded = {name: values.double() for name, values in functional_call(stage, places, (wide,)).items()}
    model, heads = copy.deepcopy(task.ranker).double(), copy.deepcopy(task.heads).double()

    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ranker = model

        def forward(self) -> Tensor:
            if isinstance(model, TwoTowerModule):
                return model.outputs(embedded, wide, heads, None, bf16=False).loss
            return heads.loss(self.ranker(embedded, wide), wide.labels, None, wide.mean_size)[0]

    total: Tensor = functional_call(Outputs(), own, ())
    return total
