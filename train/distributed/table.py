"""A plan as text."""

from collections.abc import Sequence

from tabulate import tabulate

from coldrank.train.distributed.memory import FLOAT_BYTES, size
from coldrank.train.distributed.plan import Placed, Plan
from coldrank.train.distributed.spread import Times

_LISTED = 16
# Memory beside the GPUs.
_BESIDE = {"host": "in the host's memory", "ssd": "on SSD"}


def tables(plan: Plan) -> str:
    """A line per table, the largest first; the small ones that are sharded alike share one. Maps of ids, of a rank,
    lie in the host's memory."""
    by_size = sorted(plan.placed, key=lambda p: -p.table.rows * p.table.dim)
    others: dict[tuple[str, str], list[Placed]] = {}
    for p in by_size[_LISTED:]:
        others.setdefault((p.sharding, p.kernel), []).append(p)
    groups = [[p] for p in by_size[:_LISTED]] + list(others.values())
    head = ["table", "rows", "dim", "sharding", "kernel", "ranks", "bytes", "on a rank, at most", "map of ids"]
    aligned = ["left", "right", "right", "left", "left", "left", "right", "right", "right"]
    beside = [what for what, amounts in plan.beside().items() if amounts.any()]
    head += [f"{_BESIDE[what]}, a rank" for what in beside]
    lines = [_line(plan, g) + _line_beside(plan, g, beside) for g in groups]
    return tabulate(lines, head, disable_numparse=True, colalign=[*aligned, *("right" for _ in beside)])


def _line_beside(plan: Plan, group: Sequence[Placed], beside: Sequence[str]) -> list[str]:
    alone = Plan(plan.request, plan.modules, tuple(group)).beside()
    return [size(most) if (most := alone[what].max()) else "" for what in beside]


def _line(plan: Plan, group: Sequence[Placed]) -> list[str]:
    first, only = group[0], len(group) == 1
    alone = Plan(plan.request, plan.modules, tuple(group)).memory()
    return [
        first.table.name if only else f"{len(group)} smaller tables",
        f"{sum(p.table.rows for p in group):,}",
        str(first.table.dim) if only else "",
        first.sharding,
        first.kernel,
        _ranks([s.rank for p in group for s in p.shards], plan.request.group.world_size),
        size(sum(p.table.rows * p.table.dim for p in group) * FLOAT_BYTES),
        size((alone["tables"] + alone["optimizer of the tables"]).max()),
        size(maps) if (maps := sum(plan.request.map_bytes(p.table) for p in group)) else "",
    ]


def _ranks(ranks: Sequence[int], world_size: int) -> str:
    """0-3, 8."""
    unique = sorted(set(ranks))
    if len(unique) == world_size > 1:
        return f"all {world_size}"
    runs: list[list[int]] = []
    for rank in unique:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    named = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ", ".join(named) if len(named) <= 4 else f"{len(unique)} of {world_size}"


def sequences(plan: Plan) -> str:
    """One line: how the tables of sequences are read, and what the planner expects of that and of the other way; '' of
    a model without sequences."""
    if not plan.request.of_sequences:
        return ""
    if plan.other is None:
        return f"sequences: {_read(plan)}"
    cost = lambda p: f"{p.work().max():,.2f} ms a step and {size(p.exchange.max())} exchanged"
    return f"sequences: {_read(plan)}, busiest rank {cost(plan)}; {_read(plan.other)} {cost(plan.other)}"


def _read(plan: Plan) -> str:
    if not (tables := plan.request.unpooled):
        return "in bags"
    names = ", ".join(t for t in plan.request.of_sequences if t in tables)
    return f"un-pooled (table{'s' if len(tables) > 1 else ''} {names})"


def memory(plan: Plan) -> str:
    """Least, mean and most of the ranks, by what fills the memory."""
    rows = [[kind, *(size(x) for x in (m.min(), m.mean(), m.max()))] for kind, m in plan.memory().items()]
    head = ["memory of a rank", "least", "mean", "most"]
    text = tabulate(rows, head, disable_numparse=True, colalign=("left", "right", "right", "right"))
    request = plan.request
    usable = {"host": request.usable_host, "ssd": request.usable_ssd}
    lines = [
        f"tables {_BESIDE[what]}: {size(amounts.max())} of {size(usable[what])} usable on the fullest rank, "
        f"{size(amounts.mean())} in the mean"
        for what, amounts in plan.beside().items()
        if amounts.any()
    ]
    maps = sum(map(request.map_bytes, request.features.tables))
    if maps and request.cluster.device == "cuda":
        of_host = maps * request.cluster.world_size // request.cluster.hosts
        unchecked = "" if request.cluster.host_memory else "; not checked: give --ddr, a host's memory"
        lines.append(
            f"maps of ids, in the host's memory: {size(maps)} a rank, {size(of_host)} a host, at most{unchecked}"
        )
    return "\n\n".join(filter(None, [text, "\n".join(lines)]))


def replicas(plan: Plan) -> str:
    """One line: which ranks make a replica, and what averaging them moves; '' where there is one."""
    request, s = plan.request, plan.request.sharding
    if s.replicas == 1:
        return ""
    # A ring passes every byte on twice, but for the own share.
    moved = plan.averaged.max() * 2 * (s.replicas - 1) / s.replicas / s.sync_every
    every = "every step" if s.sync_every == 1 else f"every {s.sync_every} steps"
    return (
        f"replicas: {s.replicas}, each on {request.group.world_size} of {request.cluster.world_size} ranks in a row; "
        f"averaged {every}: the busiest rank sends {size(moved)} a step for it"
    )


def balance(plan: Plan) -> str:
    """How evenly the planner expects the work on the tables to be spread."""
    work = plan.work()
    return (
        f"work on the tables, by the planner's estimate: busiest rank {work.max():.2f} ms a step, mean "
        f"{work.mean():.2f} ms (balance {plan.balance:.2f})"
    )


def exchange(times: Times) -> str:
    """How long a step's exchange takes, and the rest of it."""
    return (
        f"exchange {times.exchange:.2f} ms a step, the rest of it {times.tables + times.dense:.2f} ms (tables "
        f"{times.tables:.2f}, dense part {times.dense:.2f})"
    )
