"""What `coldrank plan` expects of a large table that candidates and histories read: in bags, and un-pooled.

    python benchmarks/plans.py

The KuaiRand arm of POSO with items of 64 columns, histories of 50, 4,096 samples a rank, 8 GPUs of 80 GiB a host: by
the planner's estimate, milliseconds of a step that the busiest rank works on the tables, the longest exchange of them,
the bytes of ids and embeddings that pass through the rank with the most, what the fullest rank holds of everything, and
the balance. Nothing of it is measured: it says what TorchRec's planner expects. A few minutes on one thread.
"""

import argparse
from dataclasses import replace

import torch
from tabulate import tabulate

from coldrank.configs import kuairand
from coldrank.train.checks import validate
from coldrank.train.distributed.config import Sequences, ShardingConfig
from coldrank.train.distributed.dense import dense_bytes
from coldrank.train.distributed.memory import size
from coldrank.train.distributed.plan import Plan
from coldrank.train.distributed.request import Cluster, PlanRequest
from coldrank.train.distributed.search import make_plan
from coldrank.train.task import RankingTask

RANKS = (8, 64, 256, 1_024)
ROWS = (10**8, 10**9, 10**10)
WAYS: tuple[Sequences, ...] = ("bags", "unpooled")
BATCH, DIM, RANKS_OF_A_HOST, HBM = 4_096, 64, 8, 80 << 30


def planned(ranks: int, rows: int, way: Sequences) -> Plan | None:
    """The plan for items of so many rows."""
    config = kuairand.poso()
    items = [
        replace(t, rows=rows, dim=DIM, mapping="hash", min_count=1) if t.name == "item" else t for t in config.tables
    ]
    config = replace(config, tables=tuple(items), sharding=ShardingConfig(sequences=way))
    features = validate(config)
    task = RankingTask(features, config.model, config.tasks, device=torch.device("meta"))
    request = PlanRequest(
        features=features,
        sharding=config.sharding,
        optimizer=config.optim.tables,
        batch_size=BATCH,
        dense_bytes=dense_bytes(task, features, BATCH),
        cluster=Cluster(device="cuda", world_size=ranks, hosts=ranks // RANKS_OF_A_HOST, memory=HBM),
    )
    return make_plan(request)


def told(plan: Plan | None) -> list[str]:
    """Where the items lie, milliseconds, of these the exchange, bytes exchanged, memory, balance."""
    if plan is None:
        return ["no plan fits", "", "", "", "", ""]
    (items,) = [p for p in plan.placed if p.table.name == "item"]
    where = f"{items.sharding}, {len({s.rank for s in items.shards})} ranks"
    times = f"{plan.work().max():,.1f}", f"{plan.moving().max():,.1f}"
    return [where, *times, size(plan.exchange.max()), size(plan.memory()["all"].max()), f"{plan.balance:.1f}"]


def main() -> None:
    """Prints two rows for each number of ranks and of rows of the table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    lines = []
    for ranks in RANKS:
        for rows in ROWS:
            for way in WAYS:
                power = f"10^{len(str(rows)) - 1}"
                lines.append([f"{ranks:,}", power, way, *told(planned(ranks, rows, way))])
                print(" | ".join(lines[-1]), flush=True)
    head = ["GPUs", "rows", "read", "items lie", "ms", "exchange, ms", "exchanged", "memory", "balance"]
    print(
        tabulate(
            lines, head, tablefmt="github", disable_numparse=True, colalign=["right"] * 2 + ["left"] * 2 + ["right"] * 5
        )
    )


if __name__ == "__main__":
    main()
