"""What a config asks of the tables' places that cannot be, or that changes nothing: of any cluster, and of one."""

from collections.abc import Collection, Iterator, Sequence

from coldrank.models.features import Table
from coldrank.train.distributed.config import ShardingConfig
from coldrank.train.distributed.memory import CACHED, KERNELS, bar, size
from coldrank.train.distributed.request import PlanRequest
from coldrank.train.sections import TablesConfig


def sharding_problem(
    sharding: ShardingConfig, tables: Sequence[Table], optimizer: TablesConfig, written: Collection[str]
) -> str:
    """The first field that asks for what cannot be on any cluster, in words; '' if there is none. written: tables whose
    rows a hook reads or writes beside the lookup."""
    return next(_anywhere(sharding, tables, optimizer, written), "")


def cluster_problem(request: PlanRequest) -> str:
    """What the config asks for that the cluster has not, in words that begin with the field; '' if nothing."""
    of_device = _of_gpus if request.cluster.device == "cuda" else _of_no_gpus
    return next((wrong for find in (of_device, _of_groups) for wrong in find(request)), "")


def _anywhere(
    s: ShardingConfig, tables: Sequence[Table], optimizer: TablesConfig, written: Collection[str]
) -> Iterator[str]:
    for table in tables:
        memory = s.memory_of(table)
        if why := bar(memory, table, optimizer, written):
            yield f"{s.memory_field(table)}: not with {why}"
        if s.choice(table.name) == "data_parallel":
            yield from _of_copies(s, table, optimizer)
        if s.replicas > 1:
            yield from _of_replicas(s, table, written)
    if s.replicas > 1 and optimizer.kind not in ("rowwise_adagrad", "adagrad"):
        # torchrec.distributed.model_parallel: DMPCollection._cache_sync_tensors takes `sum` of every state.
        had = "'rowwise_adagrad' and 'adagrad'"
        yield f"sharding.replicas={s.replicas}: not with optim.tables.kind={optimizer.kind!r}; TorchRec averages {had}"
    if s.replicas > 1 and optimizer.weight_decay:
        yield (
            f"sharding.replicas={s.replicas}: not with optim.tables.weight_decay={optimizer.weight_decay}, of which a "
            "row would get a share for every replica that has not read it; must be 0"
        )


def _of_copies(s: ShardingConfig, table: Table, optimizer: TablesConfig) -> Iterator[str]:
    if s.memory_of(table) not in ("auto", "hbm"):
        yield f"{s.memory_field(table)}: not for table {table.name}, which is data_parallel: copies lie in hbm"
    # Both are of the fused optimizers: `table_optimizer.replicated`.
    for name, value in (("kind", optimizer.kind), ("clip_value", optimizer.clip_value)):
        if value == "adam" or (name == "clip_value" and value):
            field = f"tables.{table.name}" if table.name in s.tables else "default"
            yield (
                f"sharding.{field}=data_parallel: not with optim.tables.{name}={value!r}, which copied tables cannot "
                "have; must be another choice"
            )


def _of_replicas(s: ShardingConfig, table: Table, written: Collection[str]) -> Iterator[str]:
    of = f"sharding.replicas={s.replicas}: not with"
    choice, memory = s.choice(table.name), s.memory_of(table)
    if choice not in ("auto", "table_wise", "row_wise", "data_parallel"):
        yield f"{of} table {table.name}, which is {choice}; there are table_wise, row_wise and data_parallel"
    if memory not in ("auto", "hbm"):
        yield f"{of} {s.memory_field(table)}; must be hbm or auto"
    if table.mapping == "managed":
        yield f"{of} table {table.name} of mapping='managed', whose rows pass from one id to another"
    if table.name in written:
        yield f"{of} a hook that reads and writes rows of table {table.name}"


def _of_no_gpus(request: PlanRequest) -> Iterator[str]:
    s = request.sharding
    fields = {"default_memory": s.default_memory, **{f"memory.{table}": memory for table, memory in s.memory.items()}}
    for field, memory in fields.items():
        if memory != "auto":
            yield f"sharding.{field}={memory}: the ranks have no GPUs; must be auto"
    if s.replicas > 1:
        yield f"sharding.replicas={s.replicas}: needs GPUs, which TorchRec's DMPCollection asks for; must be 1"
    if s.cache_share != (plain := ShardingConfig().cache_share):
        yield f"sharding.cache_share={s.cache_share}: has no effect on ranks without GPUs; must be {plain}"


def _of_gpus(request: PlanRequest) -> Iterator[str]:
    s, c = request.sharding, request.cluster
    for table in request.features.tables:
        memory, field = s.memory_of(table), s.memory_field(table)
        if memory == "ssd" and not c.ssd:
            yield f"{field}: is for `coldrank plan --ssd` alone: FBGEMM's public builds have no tables on an SSD"
        if memory in ("uvm", "uvm_caching") and not c.host_memory:
            yield f"{field}: needs memory of the hosts beside the GPUs; give --ddr"
    cached = any(KERNELS[memory] in CACHED for table in request.features.tables for memory in request.memories(table))
    if s.cache_share != (plain := ShardingConfig().cache_share) and not cached:
        beside = bool(c.host_memory or c.ssd)
        why = (
            "here, where no table may be cached;" if beside else "without memory beside the GPUs: give --ddr or --ssd;"
        )
        yield f"sharding.cache_share={s.cache_share}: has no effect {why} else must be {plain}"
    maps, free, per = request.host_maps, request.host_free, c.world_size // c.hosts
    if c.host_memory and maps > free:
        yield (
            f"sharding.id_maps={s.id_maps}: the maps of ids need {size(maps * per)} of {size(free * per)} usable "
            f"on each host;{' sharded they need less,' * (s.id_maps == 'whole')} more --ddr or mapping hash helps"
        )


def _of_groups(request: PlanRequest) -> Iterator[str]:
    s, c = request.sharding, request.cluster
    if c.world_size % s.replicas or (c.hosts % s.replicas and s.replicas % c.hosts):
        yield (
            f"sharding.replicas={s.replicas}: {c} do not make so many equal groups, of whole hosts or of parts of one"
        )
    elif s.replicas > 1 and all(some == ["data_parallel"] for some in request.choices().values()):
        yield (
            f"sharding.replicas={s.replicas}: has no effect where every table is copied to every rank, as those of up "
            f"to sharding.replicate_up_to={s.replicate_up_to} bytes are; must be 1"
        )
