"""One PAM step of each config on the same global batch, each rank on its half: the weights, the optimizers and what is
served.

A program for torch.distributed.run, or alone as one rank, which then holds both halves as two and is the reference:
candidates are the users of a half, and the loss is the mean of the halves'. Writes OUT/<config>.pt.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from steps import gathered
from torch import Tensor

from coldrank.data.batches import DataFolder
from coldrank.data.fit import fit_encoder
from coldrank.data.read import SampleReader, take
from coldrank.models.batch import Batch
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import Ranks, process_group
from coldrank.train.hooks.pam.pam import PamModule
from coldrank.train.hooks.pam.rows import TowerRows
from coldrank.train.load import load
from coldrank.train.run import Run, build

STEPS = 3


def reference(run: Run, pam: PamModule, batch: Batch, halves: list[Batch]) -> Tensor:
    """The loss of two ranks, on one."""
    task = run.model.module
    embedded = {name: values.chunk(2) for name, values in task.embeddings(batch).items()}
    rows: list[TowerRows] = []
    for i, half in enumerate(halves):
        sides = task.ranker.sides({name: parts[i] for name, parts in embedded.items()}, half.dense)
        rows.append(TowerRows.of(task.ranker, half, sides))
    splits = [pam.split(half) for half in halves]
    counts = torch.tensor([split.support.counts for split in splits])
    start = pam.start(task.ranker)

    def support(weights: dict[str, Tensor], of: list[int]) -> Tensor:
        total = counts[of].sum(0).clamp(min=1)
        return sum(pam.of_groups(rows[i].losses(splits[i].support)(weights), splits[i].support) for i in of) / total

    if pam.config.across == "ranks":
        paths = [pam.loop(start, lambda w: support(w, [0, 1]))] * 2
        changed = [counts.sum(0) > 0] * 2
    else:
        paths = [pam.loop(start, lambda w, i=i: support(w, [i])) for i in (0, 1)]
        changed = [c > 0 for c in counts]
    weight = torch.stack(changed).float()
    added = {
        name: sum(
            (path[-1][name] - start[name]).detach() * w.view(-1, *[1] * (start[name].dim() - 1))
            for path, w in zip(paths, weight, strict=True)
        )
        / weight.sum(0).clamp(min=1).view(-1, *[1] * (start[name].dim() - 1))
        for name in pam.names
    }
    pam._adapted = added, weight.sum(0) > 0
    if pam.config.query_average == "group":
        # The mean over a group's query rows is of both halves' rows; what is below halves it.
        rows_of_group = torch.tensor([split.query.counts for split in splits]).sum(0).clamp(min=1)
        pam.query_scale = lambda query, size: 2 / rows_of_group
    losses = [pam._query(r, s.query, p)[0] for r, s, p in zip(rows, splits, paths, strict=True)]
    return torch.stack(losses).mean()


def run_steps(config: RunConfig, data: DataFolder, ranks: Ranks) -> dict[str, Tensor]:
    """All that the steps leave, and `loss`."""
    run = build(config, data, ranks)
    (pam,) = run.hooks
    assert isinstance(pam, PamModule)
    files = data.files(config.data.fit)
    fit_encoder(run.encoder, files)
    reader = SampleReader(files, run.make.columns(), 64)
    losses = []
    for step, raw in zip(range(STEPS), reader.epoch(0), strict=False):
        cut = [{n: take(c, torch.arange(32 * i, 32 * i + 32).numpy()) for n, c in raw.items()} for i in (0, 1)]
        run.dynamic_ids(run.make(raw))  # every rank gives the rows of the whole batch
        halves = [run.make(part) for part in cut]
        for half in halves:
            run.dynamic_ids.look_up(half)
        run.optimizers.begin_step(step, STEPS)
        if ranks.world_size == 2:
            loss = run.model(halves[ranks.rank]).loss
        else:
            loss = reference(run, pam, run.make(raw), halves)
        loss.backward()
        run.optimizers.end_step()
        pam.after_step(run)
        mean = loss.detach().clone()
        torch.distributed.all_reduce(mean)
        losses.append(mean / ranks.world_size)
    return gathered(run.state, ranks) | {"loss": torch.stack(losses)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with process_group() as ranks:
        for path in args.config:
            result: dict[str, Any] = run_steps(load(str(path)), DataFolder.open(args.data), ranks)
            if ranks.is_first:
                torch.save(result, args.out / f"{path.stem}.pt")


if __name__ == "__main__":
    main()
