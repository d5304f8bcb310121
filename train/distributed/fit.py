"""When a plan does not fit: why, and what would make it fit. How far a table could grow when it does.

Whatever is suggested has been planned: it fits.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace

from coldrank.models.features import FeatureSet, Table
from coldrank.train.distributed.memory import CACHED, KERNELS, size
from coldrank.train.distributed.plan import Plan
from coldrank.train.distributed.request import PlanRequest
from coldrank.train.distributed.search import even_plan, fits, guessed_rows, with_rows

# Memory without end, with which everything fits and can be counted.
_ENDLESS = 1 << 60
_MOST_ROWS = 1 << 40
_SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)


def shortage(request: PlanRequest) -> str:
    """One line: what the fullest rank would need at the least, what it has, and what takes most of it. Of what may lie
    in several memories, were all of it in the GPUs'."""
    plan = _endless(request)
    memory = plan.memory()
    if memory["all"].max() <= request.usable:
        return _short_beside(request, plan)
    rank = int(memory["all"].argmax())
    held = lambda p: sum(request.stored(p.kernel, s.rows, s.columns).weights for s in p.shards if s.rank == rank)
    table = max(plan.placed, key=held)
    kind = max((k for k in memory if k != "all"), key=lambda k: float(memory[k][rank]))
    cache = "a cache of " if table.kernel in CACHED else ""
    what = f"table {table.table.name}, {table.sharding}: {cache}{size(held(table))} there" if kind == "tables" else kind
    return (
        f"the model does not fit: rank {rank} needs {size(memory['all'][rank])} of {size(request.usable)} usable "
        f"({request.sharding.memory_margin:.0%} of {size(request.cluster.memory)} are kept free), "
        f"most of it for {what} ({size(memory[kind][rank])})" + _beside(request)
    )


def _beside(request: PlanRequest) -> str:
    """What there is beside the GPUs, in words; '' where tables may not lie there."""
    there = {"the host's memory": request.usable_host, "SSD": request.usable_ssd}
    if not request.spills:
        return ""
    return "; beside it tables may fill " + " and ".join(f"{size(n)} of {what}" for what, n in there.items() if n)


def _short_beside(request: PlanRequest, plan: Plan) -> str:
    """Of tables that the config puts beside the GPUs."""
    needed, usable = plan.beside(), {"host": request.usable_host, "ssd": request.usable_ssd}
    what = max(usable, key=lambda kind: float(needed[kind].max()) - usable[kind])
    rank = int(needed[what].argmax())
    name = {"host": "the host's memory", "ssd": "SSD"}[what]
    return (
        f"the model does not fit: rank {rank} needs {size(needed[what][rank])} of {size(usable[what])} usable of {name}"
        " for tables that sharding.memory and sharding.default_memory put there"
    )


def remedies(request: PlanRequest) -> Iterator[str]:
    """Changes, one at a time, with which the model fits. Each has been tried with the tables that leave the choice
    row-wise."""
    yield from _looser(request)
    cluster = request.cluster
    for factor in (2, 4, 8):
        more = replace(cluster, world_size=cluster.world_size * factor, hosts=cluster.hosts * factor)
        spread = replace(request, cluster=more)
        text = f"--world-size {more.world_size} --hosts {more.hosts}"
        if fits(spread):
            yield text
            break
        # What row-wise tables exchange grows with the batch of all ranks together.
        batch = request.batch_size // factor
        if batch and fits(_with_batch(spread, batch)):
            yield f"{text} --batch-size {batch} (of all ranks as now: {batch * more.world_size})"
            break
    needed = int(_endless(request).memory()["all"].max() / (1 - request.sharding.memory_margin))
    gib = -(-needed // 2**30)
    if fits(replace(request, cluster=replace(cluster, memory=gib << 30))):
        per = 1 if cluster.device == "cuda" else cluster.world_size // cluster.hosts
        yield f"--{'hbm' if cluster.device == 'cuda' else 'ddr'} {gib * per}GiB"
    yield from _smaller_caches(request)
    yield from _more_beside(request)
    halves = [request.batch_size >> n for n in range(request.batch_size.bit_length() - 1, 0, -1)]
    # Smaller batches need less: the last that fits, of ascending ones.
    fitting = bisect_left(halves, True, key=lambda batch: not fits(_with_batch(request, batch)))
    if fitting:
        yield f"--batch-size {halves[fitting - 1]} (now {request.batch_size})"
    if table := largest_table(request.features):
        good = lambda n: fits(_with_rows(request, table, n))
        rows = _most(good, 1, table.rows, guessed_rows(request, table)) if good(1) else 0
        if rows:
            yield f"table {table.name} of {rows:,} rows (now {table.rows:,})"


def largest_rows(request: PlanRequest) -> tuple[Table, int] | None:
    """The largest table that the config declares, and the rows that it could have, to 1%, at its width, with the tables
    that leave the choice row-wise. None if there is no such table, or if it does not fit so as it is."""
    if not (table := largest_table(request.features)):
        return None
    good = lambda n: fits(_with_rows(request, table, n))
    if not good(table.rows):
        return None
    return table, _most(good, table.rows, _MOST_ROWS, guessed_rows(request, table))


def largest_table(features: FeatureSet) -> Table | None:
    """The largest of the tables of ids; those of buckets and signals have the rows that these need."""
    of_ids = [t for t in features.tables if any(f.kind == "id" for f in features.by_table[t.name])]
    return max(of_ids, key=lambda t: t.rows * t.dim, default=None)


def _looser(request: PlanRequest) -> Iterator[str]:
    """Row-wise in place of what the config asks for: one table alone if that does, or all."""
    sharding = request.sharding
    asked = {t.name: sharding.choice(t.name) for t in request.features.tables}
    tight = [t for t, choice in asked.items() if choice not in ("auto", "row_wise")]
    alone = [t for t in tight if fits(_row_wise(request, [t]))]
    for t in alone:
        yield f"--set sharding.tables.{t}=row_wise (now {asked[t]})"
    if not alone and len(tight) > 1 and fits(_row_wise(request, tight)):
        yield " ".join(f"--set sharding.tables.{t}=row_wise" for t in tight)


def _row_wise(request: PlanRequest, tables: list[str]) -> PlanRequest:
    sharding = replace(request.sharding, tables={**request.sharding.tables, **dict.fromkeys(tables, "row_wise")})
    return replace(request, sharding=sharding)


def _smaller_caches(request: PlanRequest) -> Iterator[str]:
    """The largest share of a table's rows for its cache, in round numbers, that is smaller and fits."""
    tables, now = request.features.tables, request.sharding.cache_share
    if not any(KERNELS[memory] in CACHED for t in tables for memory in request.memories(t)):
        return
    for share in (share for share in _SHARES if share < now):
        if fits(replace(request, sharding=replace(request.sharding, cache_share=share))):
            yield f"--set sharding.cache_share={share} (now {now})"
            return


def _more_beside(request: PlanRequest) -> Iterator[str]:
    """Memory of the hosts, or SSD, for tables that the GPUs have no room for, a power of two."""
    cluster = request.cluster
    if cluster.device == "cpu":
        return
    ranks = cluster.world_size // cluster.hosts
    hosts = {
        "ddr": (cluster.host_memory, lambda n: replace(cluster, host_memory=n // ranks)),
        "ssd": (cluster.ssd, lambda n: replace(cluster, ssd=n // ranks)),
    }
    for flag, (now, with_it) in hosts.items():
        powers = [1 << n for n in range(30, 60) if 1 << n > now * ranks]
        good = [replace(request, cluster=with_it(n)) for n in powers]
        if not good or not good[-1].spills or not fits(good[-1]):
            continue
        enough = bisect_left(good, True, key=fits)
        yield f"--{flag} {powers[enough] >> 30}GiB"


def _endless(request: PlanRequest) -> Plan:
    c = request.cluster
    more = replace(c, memory=_ENDLESS, host_memory=c.host_memory and _ENDLESS, ssd=c.ssd and _ENDLESS)
    plan = even_plan(replace(request, cluster=more))
    assert plan is not None
    return plan


def _with_batch(request: PlanRequest, batch_size: int) -> PlanRequest:
    part = lambda whole: whole * batch_size // request.batch_size
    dense = {"dense_bytes": part(request.dense_bytes), "dense_flops": part(request.dense_flops)}
    return replace(request, batch_size=batch_size, **dense)


def _with_rows(request: PlanRequest, table: Table, rows: int) -> PlanRequest:
    return replace(request, features=with_rows(request.features, table, rows))


def _most(good: Callable[[int], bool], low: int, high: int, guess: int) -> int:
    """The most rows from `low`, which is good, to `high`, to 1% and three digits, that are good. More rows are never
    better. Looks around the guess first, in growing strides."""
    least, stride = low, 1.004
    trial = min(max(guess, int(low * 1.01) + 1), high)
    while low < trial and low * 1.01 + 1 < high:
        if good(trial):
            low, trial = trial, min(high, int(trial * stride) + 1)
        else:
            high, trial = trial, max(low, int(trial / stride))
        stride **= 3
    while high > low * 1.01 + 1:
        middle = (low + high) // 2
        low, high = (middle, high) if good(middle) else (low, middle)
    digits = 10 ** max(0, len(str(low)) - 3)
    return max(least, low // digits * digits)
