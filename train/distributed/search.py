"""The search for a plan, by TorchRec's planner."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.proposers import GreedyProposer
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import Enumerator, PlannerError, ShardingOption
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ParameterSharding

from coldrank.models.features import FeatureSet, Table
from coldrank.train.distributed.memory import CACHED, MEMORY
from coldrank.train.distributed.plan import Placed, Plan, Shard
from coldrank.train.distributed.request import PlanRequest
from coldrank.train.distributed.space import Enumerated, Space, amounts, bytes_of, evenly, quiet, topology_of
from coldrank.train.distributed.spill import spilled

# Shards that all proposals of a proposer have together, about; proposals at the least.
_SHARDS, _LEAST = 400_000, 4


def make_plan(request: PlanRequest) -> Plan | None:
    """The fastest plan that the planner finds; None if none fits. A function of the request alone.

    If its search ends without one, everything that it may choose is tried row-wise, which spreads memory most evenly.
    Memory beside the GPUs is taken only where theirs is too small: each read from there costs many from theirs.
    """
    return _faster(request, lambda way: _asked(way, way.nearest, _found) or (_found(way) if way.spills else None))


def even_plan(request: PlanRequest) -> Plan | None:
    """The plan in which every table that leaves the choice is row-wise; None if it does not fit."""
    return _faster(request, lambda way: _asked(way, way.nearest, _even) or (_even(way) if way.spills else None))


def _found(request: PlanRequest) -> Plan | None:
    return _search(request, request.choices()) or _even(request)


def _even(request: PlanRequest) -> Plan | None:
    if (held := spilled(request)) is None:
        return None
    return _asked(request, held, lambda way: _search(way, evenly(way.choices())))


def _asked(request: PlanRequest, held: PlanRequest, plan_for: Callable[[PlanRequest], Plan | None]) -> Plan | None:
    """A plan for a request that says what holds each table, as one for the request that leaves it."""
    plan = plan_for(held)
    return None if plan is None else replace(plan, request=request)


def _faster(request: PlanRequest, plan_for: Callable[[PlanRequest], Plan | None]) -> Plan | None:
    """Of the plans for each way to read sequences the one whose busiest rank has less to do; None if none fits."""
    plans = sorted(filter(None, map(plan_for, request.ways())), key=lambda plan: plan.work().max())
    return replace(plans[0], other=next(iter(plans[1:]), None)) if plans else None


def like(plan: Plan, request: PlanRequest) -> Plan | None:
    """A plan for a request in which each table lies as in another plan, but for those of which `request` asks something
    else; one proposal, where `make_plan` tries many."""
    before = {p.table.name: [p.sharding] for p in plan.placed}
    asked, now = plan.request.choices(), request.choices()
    held = {p.table: MEMORY.get(p.kernel, "hbm") for p in plan.placed}
    kept = lambda table: request.memories(table) == plan.request.memories(table)
    memory = {t.name: m if kept(t) else request.memories(t)[0] for t, m in held.items()}
    same = {t: before[t] if now[t] == asked[t] else now[t] for t in now}
    return _asked(request, request.held(memory), lambda way: _search(way, same))


def fits(request: PlanRequest) -> bool:
    """Whether there is an `even_plan`; much faster than to make it where it has nothing but row-wise tables and
    copies."""
    return any(map(_fits, request.ways()))


def _fits(request: PlanRequest) -> bool:
    if (held := spilled(request)) is None:
        return False
    even = evenly(held.choices())
    if all(some in (["row_wise"], ["data_parallel"]) for some in even.values()):
        return True  # each rank has a shard of each table, and the first rank, which was looked at, the largest of all
    return _planned(Space(held, even)) is not None


def guessed_rows(request: PlanRequest, table: Table) -> int:
    """About how many rows a table could have in an even plan; no bound."""
    request = request.ways()[0]
    even = evenly(request.choices())
    space = Space(request, even)
    costs = {name: sum(amounts(rooms[0].most)) for name, rooms in space.rooms().items()}
    if table.name not in costs:
        return table.rows
    copied = replace(request, features=with_rows(request.features, table, 2 * table.rows))
    twice = sum(amounts(Space(copied, even).rooms()[table.name][0].most))
    everywhere = sum(cost for name, cost in costs.items() if even[name] == ["row_wise"] or name == table.name)
    free = sum(amounts(space.free))
    return max(1, table.rows + (free - everywhere) * table.rows // max(1, twice - costs[table.name]))


def with_rows(features: FeatureSet, table: Table, rows: int) -> FeatureSet:
    """The features with a table of so many rows."""
    tables = [
        replace(t, rows=rows) if t.name == table.name else t for t in features.tables if features.by_table[t.name]
    ]
    owned = {f.name for f in features.features if f.owns_table}
    return FeatureSet(features.features, [t for t in tables if t.name not in owned])


def _planned(space: Space) -> tuple[dict[str, EmbeddingModuleShardingPlan], list[ShardingOption]] | None:
    """The planner's plan for the tables that are no copies, and what it has chosen for each; None if there is none."""
    if space.hopeless:
        return None
    request, chosen = space.request, _Chosen()
    with quiet():
        topology = topology_of(request, space.free)
        planner = EmbeddingShardingPlanner(
            topology=topology,
            batch_size=request.batch_size,
            enumerator=Enumerated(request, topology, space.constraints),
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
    space = Space(request, allowed)
    if (planned := _planned(space)) is None:
        return None
    modules, options = planned
    for module in modules.values():
        for sharding in module.values():
            if sharding.compute_kernel not in CACHED:
                sharding.cache_params = None
    ranks = list(range(request.group.world_size))
    for option in space.copies:
        bags = modules.setdefault("ebc", EmbeddingModuleShardingPlan())
        bags[option.name] = ParameterSharding("data_parallel", option.compute_kernel, ranks=ranks)
    placed = {o.name: _placed(request, o, [s.rank for s in o.shards]) for o in options}
    placed |= {o.name: _placed(request, o, ranks) for o in space.copies}
    return Plan(request, modules, tuple(placed[t.name] for t in request.features.tables))


def _placed(request: PlanRequest, option: ShardingOption, ranks: Sequence[int]) -> Placed:
    sizes = [tuple(shard.size) for shard in option.shards] * (len(ranks) // len(option.shards))
    # What a shard costs depends on its size, and there may be thousands of one.
    costs = {}
    for shard in option.shards:
        if (size := tuple(shard.size)) not in costs:
            kept = sum(request.stored(option.compute_kernel, *shard.size))
            moving = shard.perf.fwd_comms + shard.perf.bwd_comms
            costs[size] = *size, max(0, bytes_of(shard) - kept), shard.perf.total, moving
    parts = tuple(Shard(rank, *costs[size]) for rank, size in zip(ranks, sizes, strict=True))
    return Placed(request.features.table(option.name), option.sharding_type, option.compute_kernel, parts)


class _Chosen:
    """Keeps the plan that the planner takes, when it has one."""

    def __init__(self) -> None:
        self.options: list[ShardingOption] = []

    def __call__(self, best: list[ShardingOption]) -> list[ShardingOption]:
        self.options = best
        return best


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
