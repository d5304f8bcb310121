"""The samples that the sides of benchmarks/throughput.py train on, and the arm of ours over them.

Work A: 20 ids (user, item, 18 of the context), each with a table of 50,000 rows of 16. Work B: a history of the last 50
items too. B batch, L sequence length, T tasks, F ids.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from coldrank.configs import base as parts
from coldrank.data.batches import DataFolder
from coldrank.data.log import LogSpec
from coldrank.data.own_log import open_log
from coldrank.data.prepare import PrepareOptions, prepare
from coldrank.data.split import TimeSplit
from coldrank.models.features import Feature, Table
from coldrank.models.heads import Binary
from coldrank.models.ranker import Ranker
from coldrank.train.config import RunConfig
from coldrank.train.sections import DataConfig, DenseConfig, OptimConfig, TablesConfig, TrainConfig

ROWS, DIM, LENGTH = 50_000, 16, 50
EXPERTS, EXPERT, TOWER = 4, (256, 128), (64,)
TABLE_RATE, TABLE_EPS, DENSE_RATE = 0.05, 1e-8, 1e-3
CONTEXT = tuple(f"c{i}" for i in range(18))
IDS = ("user_id", "item_id", *CONTEXT)
TASKS = ("long_view", "like")
LABELS = tuple(f"label_{t}" for t in TASKS)
HISTORY = "hist_item_id"
# SampleBatch of a user in work B: seven of eight have a full history.
_PER_USER = 400
_TESTED = 4096

SPEC = LogSpec(
    user="user",
    item="item",
    time="time",
    tasks={t: t for t in TASKS},
    context={c: c for c in CONTEXT},
    period="month",  # one file: batches are cut from it
)


class SampleBatch(NamedTuple):
    """B samples."""

    ids: Tensor
    """int64 [F, B]."""
    history: Tensor
    """The items of one sample after those of another, int64 [N]; empty in work A."""
    lengths: Tensor
    """Items of each sample, int64 [B]; empty in work A."""
    labels: Tensor
    """float32 [B, T]."""


def write_data(folder: Path, work: str, rows: int, seed: int = 1) -> DataFolder:
    """Writes samples of ten days to FOLDER/data-WORK-ROWS, the last few for test; keeps those that are there."""
    data = folder / f"data-{work}-{rows}"
    if not (data / "manifest.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"log-{work}-{rows}.parquet"
        users = ROWS - 1 if work == "A" else max(1, rows // _PER_USER)
        _log(np.random.default_rng(seed), rows, users).write_parquet(log)
        tested = min(_TESTED, rows // 8)
        split = lambda known: TimeSplit(test_time=known.times.at(len(known.times) - tested))
        prepare(open_log(log, SPEC), data, split, PrepareOptions(history=LENGTH, arguments={"rows": rows}))
    return DataFolder.open(data)


def _log(rng: np.random.Generator, rows: int, users: int) -> pl.DataFrame:
    user = _zipf(rng, rows, users) if users == ROWS - 1 else 1 + rng.integers(0, users, rows)
    item = _zipf(rng, rows, ROWS - 1)
    context = {c: _zipf(rng, rows, ROWS - 1) for c in CONTEXT}
    taste = rng.normal(0, 1, ROWS)[item] + rng.normal(0, 1, ROWS)[context["c0"]]
    likely = 1 / (1 + np.exp(1 - taste))
    return pl.DataFrame(
        {
            "user": user,
            "item": item,
            "time": 19_097 * 86_400_000 + np.sort(rng.choice(10 * 86_400_000, rows, replace=False)),
            **context,
            "long_view": (rng.random(rows) < likely).astype(np.int8),
            "like": (rng.random(rows) < 0.2 * likely).astype(np.int8),
        }
    )


def _zipf(rng: np.random.Generator, count: int, most: int) -> NDArray[np.int64]:
    """Ids 1..most, the r-th most frequent with a share that falls as 1 / r; which is frequent is drawn."""
    upto = np.cumsum(1 / np.arange(1, most + 1))
    rank = np.searchsorted(upto, rng.random(count) * upto[-1])
    return 1 + rng.permutation(most)[rank]


def arm(work: str, batch: int) -> RunConfig:
    """Our ranker: ids are rows of their tables, as they are for every side."""
    tables = {"user_id": "user", "item_id": "item"}
    roles = {"user_id": "user", "item_id": "item"}
    ids = (Feature(name=n, role=roles.get(n, "context"), kind="id", table=tables.get(n, f"of_{n}")) for n in IDS)
    history = parts.history(LENGTH, {HISTORY: "item"}) if work == "B" else []
    return RunConfig(
        name=f"throughput_{work}",
        tasks={task: Binary() for task in TASKS},
        features=(*ids, *history),
        tables=tuple(Table(name=tables.get(n, f"of_{n}"), rows=ROWS, dim=DIM, mapping="identity") for n in IDS),
        model=Ranker(experts=EXPERTS, expert_hidden=EXPERT, tower_hidden=TOWER),
        data=DataConfig(fit=("train",), batch_size=batch, shuffle_rows=16 * batch),
        optim=OptimConfig(
            tables=TablesConfig(kind="adagrad", lr=TABLE_RATE, eps=TABLE_EPS), dense=DenseConfig(lr=DENSE_RATE)
        ),
        train=TrainConfig(threads=1, checkpoint_every=0),
    )


def of_steps(config: RunConfig, steps: int) -> RunConfig:
    """The arm for so many steps."""
    return replace(config, train=replace(config.train, steps=steps))


def read(data: DataFolder, work: str, batch: int, steps: int) -> Iterator[SampleBatch]:
    """Whole batches of the training split in order of time, from Parquet."""
    columns = [*IDS, *LABELS, *([HISTORY] if work == "B" else [])]
    left = steps
    for path in data.files(("train",)):
        with pq.ParquetFile(path) as file:
            for part in file.iter_batches(batch, columns=columns, use_threads=False):
                if len(part) == batch and left:
                    left -= 1
                    yield _samples(part)
        if not left:
            return
    raise ValueError(
        f"{data.path}: has {steps - left} batches of {batch} rows, and {steps} are wanted; give more --rows"
    )


def _samples(part: pa.RecordBatch) -> SampleBatch:
    column = lambda name: part.column(name).to_numpy(zero_copy_only=False)
    ids = torch.from_numpy(np.stack([column(n) for n in IDS]))
    labels = torch.from_numpy(np.stack([column(n) for n in LABELS], 1).astype(np.float32))
    if HISTORY not in part.schema.names:
        return SampleBatch(ids, ids[0, :0], ids[0, :0], labels)
    lists = part.column(HISTORY)
    history = torch.tensor(lists.flatten().to_numpy())
    return SampleBatch(ids, history, torch.from_numpy(np.diff(lists.offsets.to_numpy())).to(torch.int64), labels)
