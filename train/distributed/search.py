"""The search for a plan, by TorchRec's planner."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torchrec import EmbeddingBagCollection
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.proposers import GreedyProposer
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import Enumerator, PlannerError, ShardingOption, Storage
from torchrec.distributed.planner.types import Shard as PlannedShard
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ModuleSharder, ParameterSharding

from coldrank.models.embeddings import EmbeddingStage
from coldrank.models.features import FeatureSet, Table
from coldrank.train.distributed.plan import Placed, Plan, Shard
from coldrank.train.distributed.request import FLOAT_BYTES, Cluster, PlanRequest

# Values per sample of a many-valued feature, of which the config says nothing.
_MANY = 3.0
# Shards that all proposals of a proposer have together, about; proposals at the least.
_SHARDS, _LEAST = 400_000, 4


def make_plan(request: PlanRequest) -> Plan | None:
    """The fastest plan that the planner finds; None if none fits. A function of the request alone.

    If its search ends without one, everything that it may choose is tried row-wise, which spreads memory most evenly.
    """
    return _faster(request, lambda way: _search(way, way.choices()) or _search(way, _evenly(way.choices())))


def even_plan(request: PlanRequest) -> Plan | None:
    """The plan in which every table that leaves the choice is row-wise; None if it does not fit."""
    return _faster(request, lambda way: _search(way, _evenly(way.choices())))


def _faster(request: PlanRequest, plan_for: Callable[[PlanRequest], Plan | None]) -> Plan | None:
    """Of the plans for each way to read sequences the one whose busiest rank has less to do; None if none fits."""
    plans = sorted(filter(None, map(plan_for, request.ways())), key=lambda plan: plan.work().max())
    return replace(plans[0], other=next(iter(plans[1:]), None)) if plans else None


def like(plan: Plan, request: PlanRequest) -> Plan | None:
    """A plan for a request in which each table lies as in another plan, but for those of which `request` asks something
    else; one proposal, where `make_plan` tries many."""
    before = {p.table.name: [p.sharding] for p in plan.placed}
    asked, now = plan.request.choices(), request.choices()
    return _search(request, {t: before[t] if now[t] == asked[t] else now[t] for t in now})


def fits(request: PlanRequest) -> bool:
    """Whether there is an `even_plan`; much faster than to make it where it has nothing but row-wise tables and
    copies."""
    return any(map(_fits, request.ways()))


def _fits(request: PlanRequest) -> bool:
    evenly = _evenly(request.choices())
    space = _Space(request, evenly)
    if all(some in (["row_wise"], ["data_parallel"]) for some in evenly.values()):
        # Each rank has a shard of each table, and the first rank the largest of all.
        return sum(max(sizes) for (sizes,) in space.costs().values()) <= space.free
    return _planned(space) is not None


def guessed_rows(request: PlanRequest, table: Table) -> int:
    """About how many rows a table could have in an even plan; no bound."""
    request = request.ways()[0]
    evenly = _evenly(request.choices())
    space = _Space(request, evenly)
    costs = {name: max(options[0]) for name, options in space.costs().items()}
    if table.name not in costs:
        return table.rows
    copied = replace(request, features=with_rows(request.features, table, 2 * table.rows))
    twice = max(_Space(copied, evenly).costs()[table.name][0])
    everywhere = sum(cost for name, cost in costs.items() if evenly[name] == ["row_wise"] or name == table.name)
    return max(1, table.rows + (space.free - everywhere) * table.rows // max(1, twice - costs[table.name]))


def with_rows(features: FeatureSet, table: Table, rows: int) -> FeatureSet:
    """The features with a table of so many rows."""
    tables = [
        replace(t, rows=rows) if t.name == table.name else t for t in features.tables if features.by_table[t.name]
    ]
    owned = {f.name for f in features.features if f.kind in ("bucket", "signals")}
    return FeatureSet(features.features, [t for t in tables if t.name not in owned])


def _evenly(choices: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {table: ["row_wise"] if "row_wise" in some else some for table, some in choices.items()}


class _Space:
    """What a search goes through. Copies cost the same on every rank: the planner spreads the other tables over the
    memory that they leave. copies: with one shard each. free: bytes of a rank for the other tables; below 0 if there
    are none."""

    def __init__(self, request: PlanRequest, allowed: Mapping[str, list[str]]) -> None:
        self.request, self.constraints = request, _constraints(request, allowed)
        copied = {t for t, some in allowed.items() if some == ["data_parallel"]}
        self.stage = EmbeddingStage(request.features, torch.device("meta"), request.unpooled)
        self.sharders = [_Part(set(allowed) - copied), UnpooledSharder()]
        with quiet():
            copies = _Copies(request, _topology(request.cluster, 0), self.constraints)
            self.copies = copies.enumerate(self.stage, [_Part(copied)])
        gradients = sum(o.tensor.numel() for o in self.copies) * FLOAT_BYTES
        self.free = request.usable - request.fixed_bytes - gradients - sum(_bytes(o.shards[0]) for o in self.copies)

    def costs(self) -> dict[str, list[list[int]]]:
        """Table that is no copy -> of each way to shard it, bytes of every shard."""
        with quiet():
            topology = _topology(self.request.cluster, 0)
            enumerator = _Enumerator(self.request, topology, self.constraints, whole=False)
            options = enumerator.enumerate(self.stage, self.sharders)
        by_table: dict[str, list[list[int]]] = {}
        for option in options:
            bytes_of = {tuple(shard.size): _bytes(shard) for shard in option.shards}
            sizes = [bytes_of[tuple(shard.size)] for shard in enumerator.every[_way(option)]]
            by_table.setdefault(option.name, []).append(sizes)
        return by_table

    @property
    def hopeless(self) -> bool:
        """Whether it can be told without a search that there is no plan: a table whose shards are too large however it
        is sharded, or more of all tables than the ranks hold."""
        if self.free < 0:
            return True
        costs = self.costs()
        least = sum(min(sum(sizes) for sizes in options) for options in costs.values())
        alone = max((min(max(sizes) for sizes in options) for options in costs.values()), default=0)
        return alone > self.free or least > self.free * self.request.cluster.world_size


def _planned(space: _Space) -> tuple[dict[str, EmbeddingModuleShardingPlan], list[ShardingOption]] | None:
    """The planner's plan for the tables that are no copies, and what it has chosen for each; None if there is none."""
    if space.hopeless:
        return None
    request, chosen = space.request, _Chosen()
    with quiet():
        topology = _topology(request.cluster, space.free)
        planner = EmbeddingShardingPlanner(
            topology=topology,
            batch_size=request.batch_size,
            enumerator=_Enumerator(request, topology, space.constraints),
            storage_reservation=_Nothing(),
            proposer=[_Greedy(use_depth=True), _Greedy(use_depth=False)],
            stats=[],
            constraints=space.constraints,
            callbacks=[chosen],
        )
        try:
            plan = planner.plan(space.stage, space.sharders).plan
        except PlannerError:
            return None
    return dict(plan), chosen.options


def _search(request: PlanRequest, allowed: Mapping[str, list[str]]) -> Plan | None:
    space = _Space(request, allowed)
    if (planned := _planned(space)) is None:
        return None
    modules, options = planned
    ranks = list(range(request.cluster.world_size))
    for option in space.copies:
        bags = modules.setdefault("ebc", EmbeddingModuleShardingPlan())
        bags[option.name] = ParameterSharding("data_parallel", option.compute_kernel, ranks=ranks)
    placed = {o.name: _placed(request, o, [s.rank for s in o.shards]) for o in options}
    placed |= {o.name: _placed(request, o, ranks) for o in space.copies}
    return Plan(request, modules, tuple(placed[t.name] for t in request.features.tables))


def _constraints(request: PlanRequest, allowed: Mapping[str, list[str]]) -> dict[str, ParameterConstraints]:
    return {
        table: ParameterConstraints(
            sharding_types=types,
            compute_kernels=["fused", "dense"],
            min_partition=request.sharding.column_width,
            pooling_factors=_reads(request, table),
        )
        for table, types in allowed.items()
    }


def _reads(request: PlanRequest, table: str) -> list[float]:
    """Rows that a sample reads of a table, by key; histories are full, and no row is there twice."""
    reads = request.features.table(table).reads
    by_key = [(_MANY if f.many else 1.0) * reads for f in request.features.by_table[table] for _ in f.keys]
    return [sum(by_key)] if table in request.unpooled else by_key


def _topology(cluster: Cluster, free: int) -> Topology:
    gpu = cluster.device == "cuda"
    return Topology(
        world_size=cluster.world_size,
        local_world_size=cluster.world_size // cluster.hosts,
        compute_device=cluster.device,
        hbm_cap=free if gpu else 0,
        ddr_cap=0 if gpu else free,
    )


def _placed(request: PlanRequest, option: ShardingOption, ranks: Sequence[int]) -> Placed:
    sizes = [tuple(shard.size) for shard in option.shards] * (len(ranks) // len(option.shards))
    # What a shard costs depends on its size, and there may be thousands of one.
    costs = {}
    for shard in option.shards:
        if (size := tuple(shard.size)) not in costs:
            kept = shard.size[0] * shard.size[1] * FLOAT_BYTES + request.state_bytes(*shard.size)
            moving = shard.perf.fwd_comms + shard.perf.bwd_comms
            costs[size] = *size, max(0, _bytes(shard) - kept), shard.perf.total, moving
    parts = tuple(Shard(rank, *costs[size]) for rank, size in zip(ranks, sizes, strict=True))
    return Placed(request.features.table(option.name), option.sharding_type, option.compute_kernel, parts)


def _bytes(shard: PlannedShard) -> int:
    return int(shard.storage.hbm + shard.storage.ddr)


class _Chosen:
    """Keeps the plan that the planner takes, when it has one."""

    def __init__(self) -> None:
        self.options: list[ShardingOption] = []

    def __call__(self, best: list[ShardingOption]) -> list[ShardingOption]:
        self.options = best
        return best


class Sharder(EmbeddingBagCollectionSharder):
    """Shards in every way on the CPU too, where TorchRec offers but some."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return ["data_parallel", "table_wise", "row_wise", "column_wise", "table_row_wise", "grid_shard"]


class UnpooledSharder(EmbeddingCollectionSharder):
    """Shards in the ways that TorchRec has for what is not pooled, but for copies, which are not right on the CPU."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return ["table_wise", "row_wise", "column_wise"]


class _Part(Sharder):
    """Sees some of the tables."""

    def __init__(self, tables: set[str]) -> None:
        super().__init__()
        self.tables = tables

    def shardable_parameters(self, module: EmbeddingBagCollection) -> dict[str, nn.Parameter]:
        return {name: p for name, p in super().shardable_parameters(module).items() if name in self.tables}


class _Enumerator(EmbeddingEnumerator):
    """Ways to shard each table, in an order that is the same in every process: TorchRec's goes through sets of strings.

    The optimizer's state is counted here: TorchRec counts row-wise Adagrad's as if column shards shared it. What a
    shard costs depends on its size: of those of one size, of which row-wise tables have as many as there are ranks, one
    is estimated; not `whole`, it stands for all.
    """

    def __init__(
        self,
        request: PlanRequest,
        topology: Topology,
        constraints: dict[str, ParameterConstraints],
        *,
        whole: bool = True,
    ) -> None:
        super().__init__(topology, request.batch_size, constraints)
        self.request, self.whole = request, whole
        self.every: dict[tuple[str, str, str], list[PlannedShard]] = {}

    def enumerate(self, module: nn.Module, sharders: list[ModuleSharder[nn.Module]]) -> list[ShardingOption]:
        options = super().enumerate(module, sharders)
        tables = list(dict.fromkeys(o.name for o in options))
        if self.whole:
            for option in options:
                estimated = {tuple(shard.size): shard for shard in option.shards}
                option.shards = self.every[_way(option)]
                for shard in option.shards:
                    like = estimated[tuple(shard.size)]
                    shard.storage, shard.perf = like.storage, like.perf
        return sorted(options, key=lambda o: (tables.index(o.name), o.sharding_type, o.compute_kernel))

    def populate_estimates(self, sharding_options: list[ShardingOption]) -> None:
        for option in sharding_options:
            self.every[_way(option)] = option.shards
            option.shards = list({tuple(shard.size): shard for shard in reversed(option.shards)}.values())
        super().populate_estimates(sharding_options)
        gpu = self.request.cluster.device == "cuda"
        for shard in (s for option in sharding_options for s in option.shards):
            state = self.request.state_bytes(*shard.size)
            shard.storage += Storage(hbm=state if gpu else 0, ddr=0 if gpu else state)


class _Copies(_Enumerator):
    """Makes one copy of each table: the others are like it."""

    def __init__(self, request: PlanRequest, topology: Topology, constraints: dict[str, ParameterConstraints]) -> None:
        super().__init__(request, topology, constraints)
        self._world_size = 1  # of which come the shards; what they cost is of all ranks, which the topology knows


class _Greedy(GreedyProposer):
    """TorchRec's proposals, fewer where each is long: of tens of tables that are sharded over a thousand ranks, the
    first few."""

    left = 0

    def load(self, search_space: list[ShardingOption], enumerator: Enumerator | None = None) -> None:
        super().load(search_space, enumerator)
        longest: dict[str, int] = {}
        for option in search_space:
            longest[option.name] = max(longest.get(option.name, 0), len(option.shards))
        self.left = max(_LEAST, _SHARDS // sum(longest.values()))

    def propose(self) -> list[ShardingOption] | None:
        self.left -= 1
        return super().propose() if self.left >= 0 else None


class _Nothing(FixedPercentageStorageReservation):
    """Reserves nothing: what is free has been told to the topology, which the planner leaves as it is."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def reserve(self, topology: Topology, *_args: Any, **_fields: Any) -> Topology:
        return topology


def _way(option: ShardingOption) -> tuple[str, str, str]:
    return option.name, option.sharding_type, option.compute_kernel


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
