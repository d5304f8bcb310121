"""When a plan leaves the work uneven, or lets ranks exchange for longer than they compute: which table it is, and what
would mend it. Whatever is suggested has been planned."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from coldrank.train.distributed.config import Choice, ShardingConfig
from coldrank.train.distributed.plan import Placed, Plan, Shard
from coldrank.train.distributed.search import like, make_plan

# Times the mean work that the busiest rank may have before it is said.
UNEVEN = 2.0
# Tables that are moved, one after the other.
_MOVED = 3


class Change(NamedTuple):
    """A change of the config, and the plan with it."""

    change: str
    plan: Plan


class Times(NamedTuple):
    """Estimated milliseconds a step, of the rank that exchanges longest: its exchange; what it looks up and updates;
    the dense part."""

    exchange: float
    tables: float
    dense: float

    @property
    def exceed(self) -> bool:
        """Whether the exchange takes longer than the rest of the step."""
        return self.exchange > self.tables + self.dense


def times(plan: Plan) -> Times:
    """What the rank that exchanges longest does in a step."""
    moving = plan.moving()
    rank = int(moving.argmax())
    return Times(float(moving[rank]), float(plan.work()[rank] - moving[rank]), plan.request.dense_milliseconds)


def busiest_table(plan: Plan) -> Placed:
    """The table that gives the busiest rank most of its work."""
    return _most(plan, plan.work(), lambda shard: shard.milliseconds)


def most_exchanged(plan: Plan) -> Placed:
    """The table whose rows the rank that exchanges longest exchanges most."""
    return _most(plan, plan.moving(), lambda shard: shard.moving)


def mended(plan: Plan) -> Change | None:
    """Other places for the tables that keep the busiest rank busy, or else are exchanged most, one after the other
    until the work is even and the exchange is shorter than the rest, with which the busiest rank has less to do; None
    if nothing tried does that."""
    best, moved = plan, set[str]()
    while not _good(best) and len(moved) < _MOVED:
        placed = busiest_table(best) if best.balance > UNEVEN else most_exchanged(best)
        if placed.table.name in moved or (better := _better(best, placed)) is None:
            break
        best = better
        moved.add(placed.table.name)
    if not moved or (whole := make_plan(best.request)) is None or whole.work().max() >= plan.work().max():
        return None
    return Change(_change(plan.request.sharding, best.request.sharding), whole)


def _most(plan: Plan, by_rank: np.ndarray, amount: Callable[[Shard], float]) -> Placed:
    rank = int(by_rank.argmax())
    return max(plan.placed, key=lambda p: sum(amount(s) for s in p.shards if s.rank == rank))


def _good(plan: Plan) -> bool:
    return bool(plan.balance <= UNEVEN) and not times(plan).exceed


def _better(plan: Plan, placed: Placed) -> Plan | None:
    """With another place of a table: of good plans the first (histories un-pooled, then row-wise, then the widest
    column shards), else that whose busiest rank has least to do; None if none gives it 5% less."""
    cheapest, least = None, 0.95 * plan.work().max()
    for sharding in _others(plan, placed):
        found = like(plan, replace(plan.request, sharding=sharding))
        if found is None or (work := found.work().max()) >= 0.95 * plan.work().max():
            continue
        if _good(found):
            return found
        if work < least:
            cheapest, least = found, work
    return cheapest


def _others(plan: Plan, placed: Placed) -> Iterator[ShardingConfig]:
    """Other ways to read a table of sequences, and shardings that spread a table further: its rows over all ranks, or
    over those of a host and its columns over hosts; of an un-pooled one its columns alone. Or a copy on every rank."""
    sharding, table = plan.request.sharding, placed.table
    asked = lambda choice, **width: replace(sharding, tables={**sharding.tables, table.name: choice}, **width)
    if table.name in plan.request.of_sequences and sharding.sequences == "bags":
        yield replace(sharding, sequences="unpooled")
    if placed.sharding == "data_parallel":
        return
    if placed.sharding != "row_wise":
        yield asked("row_wise")
    columns: Choice = "column_wise" if table.name in plan.request.unpooled else "grid"
    # Replicas have no column shards.
    for width in range(table.dim // 2, 3, -1) if sharding.replicas == 1 else ():
        if width % 4 == 0 and table.dim % width == 0:
            yield asked(columns, column_width=width)
    if plan.request.copies and sharding.memory_of(table.name) in ("auto", "hbm"):
        copied = asked("data_parallel")
        # Where sequences read copies alone, a way to read them is refused.
        read = all(copied.choice(t) == "data_parallel" for t in plan.request.of_sequences)
        yield replace(copied, sequences="auto") if read else copied


def _change(before: ShardingConfig, after: ShardingConfig) -> str:
    pairs = [f"sharding.tables.{t}={c}" for t, c in after.tables.items() if before.tables.get(t) != c]
    for name in ("column_width", "sequences"):
        if getattr(after, name) != getattr(before, name):
            pairs.append(f"sharding.{name}={getattr(after, name)}")
    return f"--set {' '.join(pairs)}"
