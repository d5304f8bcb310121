"""What a search for a plan goes through: the ways in which TorchRec can shard each table, and what each takes."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from torchrec import EmbeddingBagCollection
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import ParameterConstraints, Topology
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.types import Shard, ShardingOption, Storage
from torchrec.distributed.types import CacheParams, ModuleSharder

from coldrank.models.embeddings import EmbeddingStage
from coldrank.train.distributed.memory import FLOAT_BYTES, KERNELS
from coldrank.train.distributed.request import PlanRequest

# Values per sample of a many-valued feature, of which the config says nothing.
_MANY = 3.0


class Room(NamedTuple):
    """What a table takes with a kernel. most: its largest shard. mean: of a rank, were it spread evenly."""

    kernel: str
    most: Storage
    mean: Storage


class Space:
    """What a search goes through. Copies cost the same on every rank: the planner spreads the other tables over the
    memory that they leave. copies: with one shard each. free: of a rank for the other tables; below 0 if there is
    none."""

    def __init__(self, request: PlanRequest, allowed: Mapping[str, list[str]]) -> None:
        self.request, self.constraints = request, constraints_of(request, allowed)
        copied = {t for t, some in allowed.items() if some == ["data_parallel"]}
        self.stage = EmbeddingStage(request.features, torch.device("meta"), request.unpooled)
        self.sharders = [Part(set(allowed) - copied), UnpooledSharder()]
        with quiet():
            copies = _Copies(request, topology_of(request, Storage(0, 0)), self.constraints)
            self.copies = copies.enumerate(self.stage, [Part(copied)])
        gradients = sum(o.tensor.numel() for o in self.copies) * FLOAT_BYTES
        own = request.usable - request.fixed_bytes - gradients - sum(bytes_of(o.shards[0]) for o in self.copies)
        gpu = request.cluster.device == "cuda"
        self.free = Storage(own, request.usable_host, request.usable_ssd) if gpu else Storage(0, own)

    def costs(self) -> dict[str, list[tuple[str, list[Storage]]]]:
        """Table that is no copy -> of each way to shard it, its kernel and what every shard takes."""
        with quiet():
            topology = topology_of(self.request, self.free)
            enumerator = Enumerated(self.request, topology, self.constraints, whole=False)
            options = enumerator.enumerate(self.stage, self.sharders)
        by_table: dict[str, list[tuple[str, list[Storage]]]] = {}
        for option in options:
            of_size = {tuple(shard.size): shard.storage for shard in option.shards}
            sizes = [of_size[tuple(shard.size)] for shard in enumerator.every[way_of(option)]]
            by_table.setdefault(option.name, []).append((option.compute_kernel, sizes))
        return by_table

    def rooms(self) -> dict[str, list[Room]]:
        """Table that is no copy -> what it takes, the fastest kernel first."""
        order, ranks = list(KERNELS.values()).index, self.request.group.world_size
        return {
            table: [
                Room(kernel, _most(sizes), Storage(*(sum(amounts(s)[n] for s in sizes) // ranks for n in range(3))))
                for kernel, sizes in sorted(options, key=lambda o: order(o[0]))
            ]
            for table, options in self.costs().items()
        }

    @property
    def hopeless(self) -> bool:
        """Whether it can be told without a search that there is no plan: a table whose shards are too large however it
        is sharded, or more of all tables than the ranks hold."""
        if min(amounts(self.free)) < 0:
            return True
        ranks = self.request.group.world_size
        options = [[sizes for _, sizes in of_table] for of_table in self.costs().values()]
        if any(not any(_most(sizes).fits_in(self.free) for sizes in some) for some in options):
            return True
        least = sum(min(sum(s.hbm + s.ddr + s.ssd for s in sizes) for sizes in some) for some in options)
        own = [sum(min(sum(amounts(s)[n] for s in sizes) for sizes in some) for some in options) for n in range(3)]
        short = any(need > room * ranks for need, room in zip(own, amounts(self.free), strict=True))
        return short or least > sum(amounts(self.free)) * ranks


def evenly(choices: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Row-wise for every table that leaves the choice."""
    return {table: ["row_wise"] if "row_wise" in some else some for table, some in choices.items()}


def constraints_of(request: PlanRequest, allowed: Mapping[str, list[str]]) -> dict[str, ParameterConstraints]:
    """What TorchRec's planner is told of each table. allowed: table -> sharding types."""
    return {
        table: ParameterConstraints(
            sharding_types=types,
            compute_kernels=[*request.kernels(table), "dense"],
            cache_params=CacheParams(load_factor=request.sharding.cache_share),
            min_partition=request.sharding.column_width,
            pooling_factors=_reads(request, table),
        )
        for table, types in allowed.items()
    }


def _reads(request: PlanRequest, table: str) -> list[float]:
    """Rows that a sample reads of a table, by key; histories are full, and no row is there twice, as far as there are
    so many."""
    of = request.features.table(table)
    by_key = [(_MANY if f.many else 1.0) * of.reads for f in request.features.by_table[table] for _ in f.keys]
    if table not in request.unpooled:
        return by_key
    # A batch looks each row up once, unless reads are clipped one by one.
    distinct = float("inf") if request.optimizer.clip_value else of.rows / request.batch_size
    return [min(sum(by_key), distinct)]


def topology_of(request: PlanRequest, free: Storage) -> Topology:
    """The ranks among which tables are spread. free: of a rank."""
    group = request.group
    return Topology(
        world_size=group.world_size,
        local_world_size=group.world_size // group.hosts,
        compute_device=group.device,
        hbm_cap=free.hbm,
        ddr_cap=free.ddr,
        ssd_cap=free.ssd,
    )


def bytes_of(shard: Shard) -> int:
    """Of all memories together."""
    return sum(amounts(shard.storage))


def amounts(storage: Storage) -> tuple[int, int, int]:
    """Bytes of the GPU, the host and the SSD."""
    return int(storage.hbm), int(storage.ddr), int(storage.ssd)


def _most(sizes: Sequence[Storage]) -> Storage:
    """The largest of what shards take, of each memory."""
    return Storage(max(s.hbm for s in sizes), max(s.ddr for s in sizes), max(s.ssd for s in sizes))


class Sharder(EmbeddingBagCollectionSharder):
    """Shards in every way on the CPU too, where TorchRec offers but some."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return ["data_parallel", "table_wise", "row_wise", "column_wise", "table_row_wise", "grid_shard"]


class UnpooledSharder(EmbeddingCollectionSharder):
    """Shards in the ways that TorchRec has for what is not pooled, but for copies, which are not right on the CPU."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return ["table_wise", "row_wise", "column_wise"]


class Part(Sharder):
    """Sees some of the tables."""

    def __init__(self, tables: set[str]) -> None:
        super().__init__()
        self.tables = tables

    def shardable_parameters(self, module: EmbeddingBagCollection) -> dict[str, nn.Parameter]:
        return {name: p for name, p in super().shardable_parameters(module).items() if name in self.tables}


class Enumerated(EmbeddingEnumerator):
    """Ways to shard each table, in an order that is the same in every process: TorchRec's goes through sets of strings.

    What a shard's weights and the optimizer's state take is counted here: TorchRec counts row-wise Adagrad's state as
    if column shards shared it, and of tables outside the GPU none, and no cache of those on an SSD. What a shard costs
    depends on its size: of those of one size, of which row-wise tables have as many as there are ranks, one is
    estimated; not `whole`, it stands for all.
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
        self.every: dict[tuple[str, str, str], list[Shard]] = {}

    def enumerate(self, module: nn.Module, sharders: list[ModuleSharder[nn.Module]]) -> list[ShardingOption]:
        options = super().enumerate(module, sharders)
        tables = list(dict.fromkeys(o.name for o in options))
        if self.whole:
            for option in options:
                estimated = {tuple(shard.size): shard for shard in option.shards}
                option.shards = self.every[way_of(option)]
                for shard in option.shards:
                    like = estimated[tuple(shard.size)]
                    shard.storage, shard.perf = like.storage, like.perf
        return sorted(options, key=lambda o: (tables.index(o.name), o.sharding_type, o.compute_kernel))

    def populate_estimates(self, sharding_options: list[ShardingOption]) -> None:
        for option in sharding_options:
            self.every[way_of(option)] = option.shards
            option.shards = list({tuple(shard.size): shard for shard in reversed(option.shards)}.values())
        work, memory = self._estimators
        work.estimate(sharding_options, sharder_data_map=self._sharder_data_map)
        kernels = [option.compute_kernel for option in sharding_options]
        for option in sharding_options:
            if option.compute_kernel in KERNELS.values():
                option.compute_kernel = KERNELS["hbm"]
        memory.estimate(sharding_options, sharder_data_map=self._sharder_data_map)
        gpu = self.request.cluster.device == "cuda"
        for option, kernel in zip(sharding_options, kernels, strict=True):
            option.compute_kernel = kernel
            for shard in option.shards:
                # In the device's memory whole, as was asked, and what a step exchanges.
                exchange = bytes_of(shard) - shard.size[0] * shard.size[1] * FLOAT_BYTES
                weights, state, host, ssd = self.request.stored(kernel, *shard.size)
                own = weights + state + exchange
                shard.storage = Storage(own, host, ssd) if gpu else Storage(0, own)


class _Copies(Enumerated):
    """Makes one copy of each table: the others are like it."""

    def __init__(self, request: PlanRequest, topology: Topology, constraints: dict[str, ParameterConstraints]) -> None:
        super().__init__(request, topology, constraints)
        self._world_size = 1  # of which come the shards; what they cost is of all ranks, which the topology knows


def way_of(option: ShardingOption) -> tuple[str, str, str]:
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
