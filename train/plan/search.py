"""The search for a plan, by TorchRec's planner."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torchrec import EmbeddingBagCollection
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.proposers import GreedyProposer
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import PlannerError, ShardingOption, Storage
from torchrec.distributed.planner.types import Shard as PlannedShard
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ModuleSharder, ParameterSharding

from coldrank.models.embeddings import EmbeddingStage
from coldrank.train.plan.plan import Placed, Plan, Shard
from coldrank.train.plan.request import FLOAT_BYTES, Cluster, Request

# Values per sample of a many-valued feature, of which the config says nothing.
_MANY = 3.0


def make_plan(request: Request) -> Plan | None:
    """The fastest plan that the planner finds; None if none fits. A function of the request alone.

    If its search ends without one, everything that it may choose is tried row-wise, which spreads memory most evenly.
    """
    return _search(request, request.choices()) or even_plan(request)


def even_plan(request: Request) -> Plan | None:
    """The plan in which every table that leaves the choice is row-wise; None if it does not fit."""
    choices = request.choices().items()
    return _search(request, {table: ["row_wise"] if "row_wise" in some else some for table, some in choices})


def fits(request: Request) -> bool:
    """Whether there is a plan; faster than to make the best."""
    return bool(even_plan(request) or _search(request, request.choices()))


def _search(request: Request, allowed: Mapping[str, list[str]]) -> Plan | None:
    """Copies cost the same on every rank: the planner spreads the other tables over the memory that they leave."""
    cluster, features = request.cluster, request.features
    copied = {t for t, some in allowed.items() if some == ["data_parallel"]}
    constraints = _constraints(request, allowed)
    stage = EmbeddingStage(features, device=torch.device("meta"))
    with quiet():
        copies = _Copies(request, _topology(cluster, 0), constraints).enumerate(stage, [_Part(copied)])
        gradients = sum(o.tensor.numel() for o in copies) * FLOAT_BYTES
        free = request.usable - request.fixed_bytes - gradients - sum(_bytes(o.shards[0]) for o in copies)
        if free < 0:
            return None
        topology, found = _topology(cluster, free), _Found()
        planner = EmbeddingShardingPlanner(
            topology=topology,
            batch_size=request.batch_size,
            enumerator=_Enumerator(request, topology, constraints),
            storage_reservation=FixedPercentageStorageReservation(0.0),
            proposer=[GreedyProposer(), GreedyProposer(use_depth=False)],
            stats=[],
            constraints=constraints,
            callbacks=[found],
        )
        try:
            planned = planner.plan(stage, [_Part(set(allowed) - copied)]).plan
        except PlannerError:
            return None
    module = planned.get("ebc", EmbeddingModuleShardingPlan())
    ranks = list(range(cluster.world_size))
    for option in copies:
        module[option.name] = ParameterSharding("data_parallel", option.compute_kernel, ranks=ranks)
    placed = {o.name: _placed(request, o, [s.rank for s in o.shards]) for o in found.options}
    placed |= {o.name: _placed(request, o, ranks) for o in copies}
    return Plan(request, module, tuple(placed[t.name] for t in features.tables))


def _constraints(request: Request, allowed: Mapping[str, list[str]]) -> dict[str, ParameterConstraints]:
    by_table = request.features.by_table
    return {
        table: ParameterConstraints(
            sharding_types=types,
            compute_kernels=["fused", "dense"],
            min_partition=request.sharding.column_width,
            pooling_factors=[
                (_MANY if f.many else 1.0) * request.features.table(table).reads
                for f in by_table[table]
                for _ in f.keys
            ],
        )
        for table, types in allowed.items()
    }


def _topology(cluster: Cluster, free: int) -> Topology:
    gpu = cluster.device == "cuda"
    return Topology(
        world_size=cluster.world_size,
        local_world_size=cluster.world_size // cluster.hosts,
        compute_device=cluster.device,
        hbm_cap=free if gpu else 0,
        ddr_cap=0 if gpu else free,
    )


def _placed(request: Request, option: ShardingOption, ranks: Sequence[int]) -> Placed:
    shards = option.shards * (len(ranks) // len(option.shards))
    parts = []
    for rank, shard in zip(ranks, shards, strict=True):
        rows, columns = shard.size
        kept = rows * columns * FLOAT_BYTES + request.state_bytes(rows, columns)
        parts.append(Shard(rank, rows, columns, max(0, _bytes(shard) - kept), shard.perf.total))
    return Placed(request.features.table(option.name), option.sharding_type, option.compute_kernel, tuple(parts))


def _bytes(shard: PlannedShard) -> int:
    return int(shard.storage.hbm + shard.storage.ddr)


class _Found:
    """Takes what the planner has found, when it has."""

    def __init__(self) -> None:
        self.options: list[ShardingOption] = []

    def __call__(self, best: list[ShardingOption]) -> list[ShardingOption]:
        self.options = best
        return best


class Sharder(EmbeddingBagCollectionSharder):
    """Shards in every way on the CPU too, where TorchRec offers but some."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return ["data_parallel", "table_wise", "row_wise", "column_wise", "table_row_wise", "grid_shard"]


class _Part(Sharder):
    """Sees some of the tables."""

    def __init__(self, tables: set[str]) -> None:
        super().__init__()
        self.tables = tables

    def shardable_parameters(self, module: EmbeddingBagCollection) -> dict[str, nn.Parameter]:
        return {name: p for name, p in super().shardable_parameters(module).items() if name in self.tables}


class _Enumerator(EmbeddingEnumerator):
    """Ways to shard each table, in an order that is the same in every process: TorchRec's goes through sets of strings.

    The optimizer's state is counted here: TorchRec counts row-wise Adagrad's as if column shards shared it.
    """

    def __init__(self, request: Request, topology: Topology, constraints: dict[str, ParameterConstraints]) -> None:
        super().__init__(topology, request.batch_size, constraints)
        self.request = request

    def enumerate(self, module: nn.Module, sharders: list[ModuleSharder[nn.Module]]) -> list[ShardingOption]:
        options = super().enumerate(module, sharders)
        tables = list(dict.fromkeys(o.name for o in options))
        return sorted(options, key=lambda o: (tables.index(o.name), o.sharding_type, o.compute_kernel))

    def populate_estimates(self, sharding_options: list[ShardingOption]) -> None:
        super().populate_estimates(sharding_options)
        gpu = self.request.cluster.device == "cuda"
        for shard in (s for option in sharding_options for s in option.shards):
            state = self.request.state_bytes(*shard.size)
            shard.storage += Storage(hbm=state if gpu else 0, ddr=0 if gpu else state)


class _Copies(_Enumerator):
    """Estimates one copy of each table: the others are like it."""

    def populate_estimates(self, sharding_options: list[ShardingOption]) -> None:
        for option in sharding_options:
            del option.shards[1:]
        super().populate_estimates(sharding_options)


@contextmanager
def quiet() -> Iterator[None]:
    """Without TorchRec's warnings: of copied tables, which have no shards and no cache, of a topology made by hand."""
    before, root, nothing = logging.root.manager.disable, logging.getLogger(), logging.NullHandler()
    root.addHandler(nothing)  # lest logging.warning installs a handler for the whole process
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(nothing)
