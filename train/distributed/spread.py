"""When a plan leaves the work uneven: which table it is, and what would spread it. Whatever is suggested has been
planned."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from coldrank.models.features import Table
from coldrank.train.distributed.config import Choice, ShardingConfig
from coldrank.train.distributed.plan import Placed, Plan
from coldrank.train.distributed.search import like, make_plan

# Times the mean work that the busiest rank may have before it is said.
UNEVEN = 2.0
# Tables that are moved, one after the other.
_MOVED = 3


class Spread(NamedTuple):
    """A change of the config, and the plan with it."""

    change: str
    plan: Plan


def busiest_table(plan: Plan) -> Placed:
    """The table that gives the busiest rank most of its work."""
    rank = int(plan.work().argmax())
    return max(plan.placed, key=lambda p: sum(s.milliseconds for s in p.shards if s.rank == rank))


def spread(plan: Plan) -> Spread | None:
    """Other places for the tables that keep the busiest rank busy, one after the other until the work is even, with
    which that rank has less to do; None if nothing tried does that."""
    best, moved = plan, set[str]()
    while best.balance > UNEVEN and len(moved) < _MOVED:
        placed = busiest_table(best)
        if placed.table.name in moved or placed.sharding == "data_parallel":
            break
        tried = [like(best, replace(best.request, sharding=s)) for s in _others(best, placed.table)]
        better = [p for p in tried if p is not None and p.work().max() < 0.95 * best.work().max()]
        if not better:
            break
        # Of even ones the first, which has the widest column shards.
        best = next((p for p in better if p.balance <= UNEVEN), min(better, key=lambda p: p.work().max()))
        moved.add(placed.table.name)
    if not moved or (whole := make_plan(best.request)) is None or whole.work().max() >= plan.work().max():
        return None
    return Spread(_change(plan.request.sharding, best.request.sharding), whole)


def _others(plan: Plan, table: Table) -> Iterator[ShardingConfig]:
    """Shardings of a table that spread it further: its rows over all ranks, or over those of a host and its columns
    over hosts; of an un-pooled one its columns alone."""
    sharding = plan.request.sharding
    asked = lambda choice, **width: replace(sharding, tables={**sharding.tables, table.name: choice}, **width)
    row_wise: Choice = "row_wise"
    columns: Choice = "column_wise" if table.name in plan.request.unpooled else "grid"
    yield asked(row_wise)
    for width in range(table.dim // 2, 3, -1):
        if width % 4 == 0 and table.dim % width == 0:
            yield asked(columns, column_width=width)


def _change(before: ShardingConfig, after: ShardingConfig) -> str:
    pairs = [f"sharding.tables.{t}={c}" for t, c in after.tables.items() if before.tables.get(t) != c]
    if after.column_width != before.column_width:
        pairs.append(f"sharding.column_width={after.column_width}")
    return f"--set {' '.join(pairs)}"
