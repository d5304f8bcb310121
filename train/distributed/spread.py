"""When a plan leaves the work uneven, or lets ranks exchange for longer than they compute: which table it is, and what
would mend it. Whatever is suggested has been planned."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from coldrank.train.distributed.config import Choice, Memory, ShardingConfig
from coldrank.train.distributed.plan import Placed, Plan, Shard
from coldrank.train.distributed.request import PlanRequest
from coldrank.train.distributed.search import like, make_plan
from coldrank.train.sections import TablesConfig

# Times the mean work that the busiest rank may have before it is said.
UNEVEN = 2.0
# Milliseconds of a step that are worth a word: what the planner does not count, launching kernels and collectives,
# takes as long.
NOTICED = 1.0
# Tables that are moved, one after the other.
_MOVED = 6


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
        """Whether the exchange takes longer than the rest of the step, and long enough to be noticed."""
        return self.exchange > max(self.tables + self.dense, NOTICED)


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


def uneven(plan: Plan) -> bool:
    """Whether the busiest rank lets the others wait."""
    work = plan.work()
    return bool(plan.balance > UNEVEN and work.max() - work.mean() > NOTICED)


def is_good(plan: Plan) -> bool:
    """Whether nothing is to be said of it."""
    return not uneven(plan) and not times(plan).exceed


def _is_even(plan: Plan) -> bool:
    """The same, and even where it is not noticed."""
    return plan.balance <= UNEVEN and not times(plan).exceed


def mended(plan: Plan) -> Change | None:
    """Other places for the tables that keep the busiest rank busy, or else are exchanged most, one after the other
    until the plan is good, with which the busiest rank has less to do; None if nothing tried does that."""
    best, moved = plan, set[str]()
    while not _is_even(best) and len(moved) < _MOVED:
        placed = busiest_table(best) if best.balance > UNEVEN else most_exchanged(best)
        if placed.table.name in moved or (better := _better(best, placed)) is None:
            break
        best = better
        moved.add(placed.table.name)
    if not moved or (whole := make_plan(best.request)) is None or whole.work().max() >= plan.work().max():
        return None
    return Change(_change(plan.request, best.request), whole)


def with_copies(plan: Plan) -> Change | None:
    """Another optimizer of the tables, with which small ones are copied, and then other places as in `mended`; None if
    they may be copied as it is, or if that is no good."""
    request = plan.request
    if request.copies:
        return None
    plain = TablesConfig()
    kind = plain.kind if request.optimizer.kind == "adam" else request.optimizer.kind
    copying = replace(request.optimizer, kind=kind, clip_value=plain.clip_value, betas=plain.betas)
    if (found := make_plan(replace(request, optimizer=copying))) is None:
        return None
    if not is_good(found) and (better := mended(found)):
        found = better.plan
    return Change(_change(request, found.request), found) if is_good(found) else None


def _most(plan: Plan, by_rank: np.ndarray, amount: Callable[[Shard], float]) -> Placed:
    rank = int(by_rank.argmax())
    return max(plan.placed, key=lambda p: sum(amount(s) for s in p.shards if s.rank == rank))


def _better(plan: Plan, placed: Placed) -> Plan | None:
    """With another place of a table: of even plans the first, else that whose busiest rank has least to do; None if
    none gives it 5% less, nor, where another table keeps another rank as busy, leaves this one 5% less."""
    work, best = _work(plan), None
    for sharding in _others(plan, placed):
        if (found := like(plan, replace(plan.request, sharding=sharding))) is None:
            continue
        most, spread = _work(found)
        if most >= 0.95 * work[0] and (most > 1.01 * work[0] or spread >= 0.95 * work[1]):
            continue
        if _is_even(found):
            return found
        if best is None or (most, spread) < _work(best):
            best = found
    return best


def _work(plan: Plan) -> tuple[float, float]:
    """Of the busiest rank; and a sum that is less where any busy rank has less to do."""
    work = plan.work()
    return float(work.max()), float(np.square(work).sum())


def _others(plan: Plan, placed: Placed) -> Iterator[ShardingConfig]:
    """Other ways to read a table of sequences; the GPU's memory in place of another; the planner's own choice; a
    table's rows over all ranks; a copy on every rank; its rows over the ranks of a host and its columns over hosts, of
    an un-pooled one its columns alone."""
    sharding, table = plan.request.sharding, placed.table
    asked = lambda choice, **fields: replace(sharding, tables={**sharding.tables, table.name: choice}, **fields)
    elsewhere = sharding.memory_of(table) not in ("auto", "hbm")
    memory: dict[str, Memory] = {**sharding.memory, **({table.name: "hbm"} if elsewhere else {})}
    if table.name in plan.request.of_sequences and sharding.sequences == "bags":
        yield replace(sharding, sequences="unpooled")
    if elsewhere:
        yield replace(sharding, memory=memory)
    if sharding.default != "auto":
        yield replace(sharding, default="auto")
    if placed.sharding == "data_parallel":
        return
    if placed.sharding != "row_wise":
        yield asked("row_wise")
    if plan.request.copies:
        copied = asked("data_parallel", memory=memory)
        # Where sequences read copies alone, a way to read them is refused.
        read = all(copied.choice(t) == "data_parallel" for t in plan.request.of_sequences)
        yield replace(copied, sequences="auto") if read else copied
    columns: Choice = "column_wise" if table.name in plan.request.unpooled else "grid"
    # Replicas have no column shards, which train otherwise: not for what no one would notice.
    widths = range(table.dim // 2, 3, -1) if sharding.replicas == 1 and not is_good(plan) else ()
    for width in widths:
        if width % 4 == 0 and table.dim % width == 0:
            yield asked(columns, column_width=width)


def _change(before: PlanRequest, after: PlanRequest) -> str:
    pairs: list[str] = []
    for name in ("kind", "clip_value", "betas"):
        if (value := getattr(after.optimizer, name)) != getattr(before.optimizer, name):
            pairs.append(f"optim.tables.{name}={list(value) if isinstance(value, tuple) else value}".replace(" ", ""))
    old, new = before.sharding, after.sharding
    pairs += [f"sharding.tables.{t}={c}" for t, c in new.tables.items() if old.tables.get(t) != c]
    pairs += [f"sharding.memory.{t}={m}" for t, m in new.memory.items() if old.memory.get(t) != m]
    for name in ("default", "column_width", "sequences"):
        if getattr(new, name) != getattr(old, name):
            pairs.append(f"sharding.{name}={getattr(new, name)}")
    return f"--set {' '.join(pairs)}"
