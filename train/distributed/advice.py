"""What is said of a plan that leaves the work uneven or exchanges for too long."""

from collections.abc import Iterator

from coldrank.train.distributed import table
from coldrank.train.distributed.plan import Plan
from coldrank.train.distributed.spread import (
    NOTICED,
    UNEVEN,
    Change,
    busiest_table,
    is_good,
    mended,
    most_exchanged,
    times,
    uneven,
    with_copies,
)


def warnings(plan: Plan) -> list[str]:
    """What is not as it should be, a line each: the work is uneven; the exchange takes longer than the rest of a
    step."""
    found = []
    if uneven(plan):
        placed = busiest_table(plan)
        found.append(
            f"balance {plan.balance:.2f}: the busiest rank has so many times the mean work, most of it of table "
            f"{placed.table.name}, {placed.sharding}"
        )
    if times(plan).exceed:
        placed = most_exchanged(plan)
        found.append(f"{table.exchange(times(plan))}; most of it of table {placed.table.name}, {placed.sharding}")
    return found


def mending(plan: Plan) -> str:
    """What would mend that, in lines; or what would help, or that nothing tried would."""
    lines = [f"uneven: balance above {UNEVEN:g}"] if uneven(plan) else []
    lines += ["exchange: longer than the rest of a step"] if times(plan).exceed else []
    better = mended(plan)
    other = None if better and is_good(better.plan) else with_copies(plan)
    if better:
        mends = is_good(better.plan)
        lines += ["What would mend it (planned):" if mends else "What would help, but not mend it (planned):"]
        lines += _promised(plan, better)
    if other:
        optimizer = plan.request.optimizer
        barred = {"Adam": optimizer.kind == "adam", "optim.tables.clip_value": optimizer.clip_value > 0}
        named = " and ".join(what for what, there in barred.items() if there)
        lines += [f"With {named} no table is copied to every rank. What would mend it, and trains otherwise (planned):"]
        lines += _promised(plan, other)
    if not better and not other:
        lines += [_nothing(plan)]
    return "\n".join(lines)


def _promised(plan: Plan, change: Change) -> Iterator[str]:
    after = change.plan
    yield f"  {change.change}"
    yield f"  then {table.balance(after)}{_uneven_still(plan, after)}"
    longer = ": still longer than the rest" if times(plan).exceed else ": longer than the rest"
    yield f"  and {table.exchange(times(after))}" + (longer if times(after).exceed else "")
    if any(p.sharding in ("grid_shard", "column_wise") for p in after.placed):
        yield "  column shards have an optimizer's sum each: docs/sharding.md"


def _uneven_still(before: Plan, after: Plan) -> str:
    """What is to be said of the balance after a change, in words; '' where it is even."""
    if after.balance <= UNEVEN:
        return ""
    less = "less uneven, still" if UNEVEN < after.balance < before.balance else "uneven,"
    short = "" if uneven(after) else f", which costs less than {NOTICED:g} ms a step"
    return f": {less} above {UNEVEN:g}{short}"


def _nothing(plan: Plan) -> str:
    """Of the table in question."""
    name = (busiest_table(plan) if uneven(plan) else most_exchanged(plan)).table.name
    groups = "" if plan.request.sharding.replicas > 1 else ", or sharding.replicas (docs/memory.md)"
    return (
        f"Nothing that was tried mends it: no other place of table {name} gives the busiest rank less to do. Fewer "
        f"columns of it, or fewer ids of it a sample, would{groups if times(plan).exceed else ''}"
    )
