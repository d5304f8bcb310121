"""FuxiCTR, NextRec and torch-rechub as sides of benchmarks/throughput.py: each with its own layers, loader and trainer.

Adagrad for everything, tables as a whole: the rule that our tables have, as these libraries offer it. The attention of
work B is DIN's, by their own layers; what it reads takes the place of the pooled history.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from throughput_cost import Cost, SideJob, cost_of
from throughput_data import DIM, EXPERT, EXPERTS, HISTORY, IDS, LABELS, LENGTH, ROWS, TABLE_RATE, TOWER, read
from torch import Tensor, nn

Features = dict[str, Tensor]
_VALIDATED = 256


class Library(Protocol):
    """A library's model over columns IDS, HISTORY (padded with 0) and LABELS."""

    suffix: str
    """Ending of the files that it reads."""

    def train(self, batches: list[tuple[Features, Tensor]]) -> None:
        """Steps over batches that are ready."""
        ...

    def fit(self, training: Path, validation: Path) -> None:
        """One pass over a file, by the library's own loader and trainer."""
        ...


class Peer:
    """A side."""

    def __init__(self, job: SideJob, library: Library) -> None:
        self.job, self.library = job, library

    def step(self, steps: int) -> Cost:
        """Steps over batches that are ready."""
        ready = list(_padded(self.job, min(steps, 16)))
        self.library.train(ready[:2])
        return cost_of(lambda: self.library.train([ready[n % len(ready)] for n in range(steps)]))

    def whole(self, steps: int) -> Cost:
        """A pass over a file of so many batches, and validation on a few rows."""
        training, validation = (self.job.folder / f"{n}{self.library.suffix}" for n in (steps, "validation"))
        if not training.exists():
            batches = list(_padded(self.job, steps))
            _write(training, batches, self.job.batch)
            _write(
                validation, [(({n: x[:_VALIDATED] for n, x in batches[0][0].items()}), batches[0][1][:_VALIDATED])], 1
            )
        return cost_of(lambda: self.library.fit(training, validation))


def _padded(job: SideJob, steps: int) -> Iterator[tuple[Features, Tensor]]:
    for samples in read(job.data, job.work, job.batch, steps):
        features = dict(zip(IDS, samples.ids, strict=True))
        if job.work == "B":
            features[HISTORY] = torch.zeros(job.batch, LENGTH, dtype=torch.int64)
            features[HISTORY][torch.arange(LENGTH) < samples.lengths.unsqueeze(1)] = samples.history
        yield features, samples.labels


def _write(path: Path, batches: list[tuple[Features, Tensor]], batch: int) -> None:
    columns = {n: torch.cat([f[n] for f, _ in batches]).numpy() for n in batches[0][0]}
    labels = torch.cat([y for _, y in batches]).numpy()
    columns |= {n: labels[:, i] for i, n in enumerate(LABELS)}
    if path.suffix == ".npz":
        np.savez(path, **columns)
    else:
        lists = {n: pa.array(list(x)) if x.ndim == 2 else pa.array(x) for n, x in columns.items()}
        pq.write_table(pa.table(lists), path, row_group_size=16 * batch)


class Attended(nn.Module):
    """Stands where a library's MMoE has its embeddings, [B, D]: the ids', then what attention reads of the history."""

    def __init__(
        self, embedding: nn.Module, table: nn.Module, attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.embedding, self.table, self.attend = embedding, table, attend

    def forward(self, x: Features, features: list[Any], squeeze_dim: bool = True) -> Tensor:
        static = self.embedding(x, [f for f in features if f.name != HISTORY], squeeze_dim=squeeze_dim)
        past = x[HISTORY].long()
        return torch.cat([static, self.attend(self.table(x["item_id"].long()), self.table(past), past != 0)], 1)


class Rechub:
    """Reads Parquet by its ParquetIterableDataset. Its MLP has batch normalisation, always."""

    suffix = ".parquet"

    def __init__(self, job: SideJob) -> None:
        from torch_rechub.basic.features import SequenceFeature, SparseFeature
        from torch_rechub.models.multi_task import MMOE
        from torch_rechub.models.ranking.din import ActivationUnit
        from torch_rechub.trainers import MTLTrainer

        self.job = job
        features = [SparseFeature(n, ROWS, DIM, padding_idx=0) for n in IDS]
        if job.work == "B":
            features.append(SequenceFeature(HISTORY, ROWS, DIM, shared_with="item_id", padding_idx=0))
        tasks, towers = ["classification"] * len(LABELS), [{"dims": list(TOWER)} for _ in LABELS]
        model = MMOE(features, tasks, EXPERTS, {"dims": list(EXPERT)}, towers)
        if job.work == "B":
            unit, embedding = ActivationUnit(DIM, [36], "relu"), model.embedding
            model.embedding = Attended(embedding, embedding.embed_dict["item_id"], lambda q, k, _: unit(k, q))
            model.attention = unit
        self.trainer = MTLTrainer(
            model, tasks, torch.optim.Adagrad, {"lr": TABLE_RATE}, n_epoch=1, model_path=str(job.folder)
        )

    def train(self, batches: list[tuple[Features, Tensor]]) -> None:
        """Its `train_one_epoch`."""
        self.trainer.train_one_epoch(batches)

    def fit(self, training: Path, validation: Path) -> None:
        """`fit` of its trainer."""
        self.trainer.fit(self._load(training), self._load(validation))

    def _load(self, path: Path) -> Iterable[tuple[Features, Tensor]]:
        from torch_rechub.data.dataset import ParquetIterableDataset

        columns = [*IDS, *LABELS, *([HISTORY] if self.job.work == "B" else [])]
        for batch in ParquetIterableDataset([path], columns=columns, batch_size=self.job.batch):
            labels = torch.stack([batch.pop(n) for n in LABELS], 1)
            yield batch, labels


@contextmanager
def make(job: SideJob) -> Iterator[Peer]:
    """The side of a library. They write their logs and models to where they are called."""
    library: Callable[[SideJob], Library] = Rechub
    if job.side == "fuxictr":
        from throughput_fuxictr import FuxiCTR

        library = FuxiCTR
    elif job.side == "nextrec":
        from throughput_nextrec import NextRec

        library = NextRec
    os.chdir(job.folder)
    torch.manual_seed(1)
    yield Peer(job, library(job))
