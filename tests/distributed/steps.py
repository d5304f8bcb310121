"""Some training steps of each config on the same global batches, each rank on its share of the rows.

A program for torch.distributed.run, or alone as one rank. Writes OUT/<config>.pt: the mean loss of every step, and all
that the steps change (weights, optimizer states and what encodes), gathered from the ranks.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed.tensor import DTensor

from coldrank.data.batches import DataFolder
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader, take
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import Ranks, process_group
from coldrank.train.distributed.tables import local_parts, whole_shape
from coldrank.train.load import load
from coldrank.train.run import Run, build
from coldrank.train.stepping import Taken


def losses(run: Run, ranks: Ranks, steps: int) -> Iterator[float]:
    """Trains; rank r of n takes the r-th n-th of the rows of each batch. Yields the mean loss over the ranks."""
    config = run.config
    reader = SampleReader(
        run.data.files(config.data.fit),
        run.make.columns(training=True),
        config.data.batch_size,
        shuffle_rows=256,
        seed=config.seed,
    )
    share = config.data.batch_size // ranks.world_size
    rows = torch.arange(ranks.rank * share, (ranks.rank + 1) * share).numpy()
    for step, raw in enumerate(itertools.islice(reader.epoch(0), steps)):
        batch = run.make({name: take(column, rows) for name, column in raw.items()})
        taken = Taken(batch, 0, step + 1, run.dynamic_ids(batch))
        run.begin_step(taken, step, steps)
        loss = run.model(batch.to(ranks.device)).loss
        loss.backward()
        run.end_step()
        mean = loss.detach()
        dist.all_reduce(mean)
        yield mean.item() / ranks.world_size


class Part(NamedTuple):
    """What a rank has of a tensor: pieces by their first row and column, or (shape empty) the whole."""

    shape: tuple[int, ...]
    pieces: list[tuple[list[int], Tensor]]


def own_parts(state: dict[str, Any], prefix: str = "") -> dict[str, Part]:
    """Path -> this rank's part; counters of one element are left out."""
    found: dict[str, Part] = {}
    for key, value in state.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found |= own_parts(value, f"{name}/")
        elif isinstance(value, ShardedTensor | DTensor):
            pieces = [(offsets, part.detach().cpu()) for part, offsets in local_parts(value)]
            found[name] = Part(tuple(whole_shape(value)), pieces)
        elif isinstance(value, Tensor) and value.numel() > 1:
            found[name] = Part((), [([], value.detach().cpu())])
    return found


def in_order(pairs: Tensor) -> Tensor:
    """Ids and rows [2, M] by ascending id, without those that stand for none."""
    pairs = pairs[:, pairs[1] > 0]
    return pairs[:, pairs[0].argsort()]


def gathered(state: dict[str, Any], ranks: Ranks) -> dict[str, Tensor]:
    """Whole tensors, from the parts of all ranks; raises AssertionError if what several ranks hold differs, or a piece
    is on no rank. Ids and rows are in order: every rank adds its own."""
    by_rank: list[dict[str, Part]] = [{} for _ in range(ranks.world_size)]
    dist.all_gather_object(by_rank, own_parts(state))
    whole: dict[str, Tensor] = {}
    for parts in by_rank:
        for name, (shape, pieces) in parts.items():
            for offsets, piece in pieces:
                if not shape:
                    if not torch.equal(piece, whole.setdefault(name, piece)):
                        raise AssertionError(f"{name} differs between ranks")
                    continue
                none = torch.tensor(torch.nan if piece.is_floating_point() else -1).to(piece)
                full = whole.setdefault(name, none.expand(shape).clone())
                place = tuple(slice(o, o + n) for o, n in zip(offsets, piece.shape, strict=True))
                there = full[place]  # of another rank, where there are replicas
                taken = ~there.isnan() if piece.is_floating_point() else there != -1
                if taken.any() and not torch.equal(there, piece):
                    raise AssertionError(f"{name} differs between ranks")
                full[place] = piece
    if missing := [n for n, value in whole.items() if value.is_floating_point() and value.isnan().any()]:
        raise AssertionError(f"on no rank: {missing}")
    return {name: in_order(value) if name.endswith(".known") else value for name, value in whole.items()}


def run_steps(config: RunConfig, data: DataFolder, ranks: Ranks, steps: int) -> dict[str, Tensor]:
    """All that the steps of one config leave, and `loss` [steps]."""
    run = build(config, data, ranks)
    fit_encoder(run.encoder, data.files(config.data.fit))
    loss = torch.tensor(list(losses(run, ranks, steps)), dtype=torch.float64)
    run.replicas.average()
    return gathered(run.state, ranks) | {"loss": loss}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    args = parser.parse_args()
    with process_group() as ranks:
        for path in args.config:
            result = run_steps(load(str(path)), DataFolder.open(args.data), ranks, args.steps)
            if ranks.is_first:
                torch.save(result, args.out / f"{path.stem}.pt")


if __name__ == "__main__":
    main()
