"""What replicas of the tables should come to: two models, each trained on a half of every batch, their tables averaged.

A program: DATA OUT EVERY. Writes OUT/two.json, the config of the replicas, and OUT/halves.pt: losses and all that
`STEPS` steps change.
"""

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from steps import in_order, own_parts
from torch import Tensor

from coldrank.data.batches import DataFolder
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader, take
from coldrank.models.heads import Binary
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.distributed.ranks import Ranks, process_group
from coldrank.train.distributed.tables import table_of
from coldrank.train.run import Run, build
from coldrank.train.stepping import Taken

sys.path.append(str(Path(__file__).parents[1]))

from tiny import growing

STEPS = 3
# Tables of both collections, whole and by rows, and one that is copied: on every rank, with the gradient of all.
SHARDING = ShardingConfig(
    default="row_wise", tables={"user": "table_wise", "tag": "data_parallel"}, sequences="unpooled", replicas=2
)


def replicated(every: int = 1) -> RunConfig:
    """One task, whose label every sample has: the mean over a group's rows is then as over all. Growing tables, whose
    ids lie with all ranks."""
    sharding = replace(SHARDING, sync_every=every)
    base = replace(growing(), tasks={"long_view": Binary()}, sharding=sharding)
    return replace(base, train=replace(base.train, steps=5, checkpoint_every=2))


def whole(run: Run) -> dict[str, Tensor]:
    """All of a run on one rank without GPU, in place; ids and rows in order."""
    pieces = {name: piece for name, part in own_parts(run.state).items() for _, piece in part.pieces}
    return {name: in_order(piece) if name.endswith(".known") else piece for name, piece in pieces.items()}


def is_sharded(name: str) -> bool:
    """Whether what has this path in a run's state is of a table that is not copied."""
    part, _, rest = name.partition("/")
    path = rest if part == "model" else rest.partition("/")[2].removeprefix("tables.").partition("/")[0]
    return bool(table_of(path)) and table_of(path) != "tag"


def expected(data: DataFolder, ranks: Ranks, every: int) -> dict[str, Tensor]:
    """Dense weights and copies with the gradient of both halves, the rest averaged after `every` steps and the last."""
    of_one = ShardingConfig(default="table_wise", tables={"tag": "data_parallel"})
    halves = [build(replace(replicated(), sharding=of_one), data, ranks) for _ in range(2)]
    c, losses = halves[0].config, []
    for half in halves:
        fit_encoder(half.encoder, data.files(c.data.fit))
    columns = halves[0].make.columns(training=True)
    reader = SampleReader(data.files(c.data.fit), columns, c.data.batch_size, shuffle_rows=256, seed=c.seed)
    size = c.data.batch_size // 2
    for step, raw in enumerate(itertools.islice(reader.epoch(0), STEPS)):
        of_halves = []
        for n, half in enumerate(halves):
            rows = torch.arange(n * size, (n + 1) * size).numpy()
            half.dynamic_ids(half.make(raw))  # new ids of both halves get their rows
            batch = half.make({name: take(column, rows) for name, column in raw.items()})
            half.dynamic_ids(batch)
            half.begin_step(Taken(batch, 0, step + 1), step, STEPS)
            loss = half.model(batch).loss
            loss.backward()
            of_halves.append(loss.item())
        losses.append(sum(of_halves) / 2)
        for pair in zip(*(half.model.parameters() for half in halves), strict=True):
            if pair[0].grad is not None:
                gradient = (pair[0].grad + pair[1].grad) / 2
                for parameter in pair:
                    parameter.grad = gradient.clone()
        for half in halves:
            half.end_step()
        if (step + 1) % every == 0 or step + 1 == STEPS:
            average(halves)
    return whole(halves[0]) | {"loss": torch.tensor(losses, dtype=torch.float64)}


def average(halves: list[Run]) -> None:
    """Of both models, what is sharded."""
    states = [whole(half) for half in halves]
    for name, value in states[0].items():
        if is_sharded(name):
            mean = (value + states[1][name]) / 2
            for state in states:
                state[name].copy_(mean)


def main() -> None:
    data, out, every = sys.argv[1:]
    (Path(out) / "two.json").write_text(json.dumps(to_dict(replicated(int(every)))))
    with process_group() as ranks:
        torch.save(expected(DataFolder.open(Path(data)), ranks, int(every)), Path(out) / "halves.pt")


if __name__ == "__main__":
    main()
