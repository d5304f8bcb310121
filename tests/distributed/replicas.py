"""Replicas on the CPU: TorchRec's DMPCollection as it is, but for what it does on GPUs alone.

A program for torch.distributed.run, with PYTHONOPTIMIZE=1, without which TorchRec asserts that there is a GPU. Trains
each config in steps (steps.py), and then whole runs of the last one, begun in four replicas: into OUT/run step by step,
into OUT/piped by TorchRec's pipeline. Then OUT/warm.pt: what two replicas begin with, given the weights of OUT/run.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from steps import gathered, run_steps
from torch.distributed import _remote_device
from torchrec.distributed.model_parallel import DMPCollection
from torchrec.distributed.types import ShardingPlan

from coldrank.data.batches import DataFolder
from coldrank.data.fit import fit_encoder
from coldrank.train.distributed import shard
from coldrank.train.distributed.ranks import process_group
from coldrank.train.load import load
from coldrank.train.run import build
from coldrank.train.trainer import train
from coldrank.train.warm_start import warm_start


def stand_in() -> None:
    """What our part refuses without GPUs; ranks' devices, which have no number on the CPU; gloo, which has no mean."""
    shard.cluster_problem = lambda _: ""
    remap = DMPCollection._remap_sharding_plan

    def without_number(self: DMPCollection, plan: ShardingPlan, **fields: Any) -> None:
        remap(self, plan, **fields)
        specs = [sharding.sharding_spec for module in plan.plan.values() for sharding in module.values()]
        for part in (part for spec in specs if spec is not None for part in spec.shards):
            part.placement = _remote_device(f"rank:{part.placement.rank()}/cpu")

    def mean(_: DMPCollection, context: Any, tensors: dict[torch.dtype, list[torch.Tensor]], *_rest: Any) -> None:
        for tensor in (tensor for some in tensors.values() for tensor in some):
            dist.all_reduce(tensor, group=context.replica_pg)
            tensor /= dist.get_world_size(context.replica_pg)

    DMPCollection._remap_sharding_plan = without_number
    DMPCollection._allreduce_tensors = mean


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    args = parser.parse_args()
    stand_in()
    data = DataFolder.open(args.data)
    with process_group() as ranks:
        for path in args.config:
            config = load(str(path))
            result = run_steps(config, data, ranks, args.steps)
            if ranks.is_first:
                torch.save(result, args.out / f"{path.stem}.pt")
        four = replace(config.sharding, replicas=4)
        for name, pipeline in (("run", "off"), ("piped", "on")):
            whole = replace(config, train=replace(config.train, pipeline=pipeline))
            begun = replace(whole, sharding=four, train=replace(whole.train, steps=3))
            train(begun, data, args.out / name, ranks, fresh=True, diff="")
            train(whole, data, args.out / name, ranks, fresh=False, diff="")
        begun_with = replace(config, train=replace(config.train, warm_start=str(args.out / "run")))
        run = build(begun_with, data, ranks)
        fit_encoder(run.encoder, data.files(config.data.fit))
        report = warm_start(run)
        found = gathered(run.state, ranks) | {"left": torch.tensor(len(report.left))}
        if ranks.is_first:
            torch.save(found, args.out / "warm.pt")


if __name__ == "__main__":
    main()
