"""What is planned: tables, batch and ranks, and what the planner may choose for each table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from coldrank.models.features import FeatureSet, Table
from coldrank.models.ids.maps import map_of
from coldrank.models.ids.mixing import BLOCKS, Share
from coldrank.train.distributed.config import Memory, Sequences, ShardingConfig
from coldrank.train.distributed.memory import KERNELS, Stored, bar, stored
from coldrank.train.sections import TablesConfig

ID_AND_ROW_BYTES = 16
# What a rank is taken to compute in a millisecond, in float32: a GPU as large as the planner takes it to be, whose
# memory gives 897 GiB/s, at two thirds of its peak; a core of a CPU.
_FLOPS = {"cuda": 10e9, "cpu": 0.1e9}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Ranks, as many on every host. memory: bytes per rank, of the GPU, or of the host shared out where there is none.
    host_memory, ssd: bytes per rank that tables may take beside the GPU's."""

    device: Literal["cpu", "cuda"]
    world_size: int
    hosts: int
    memory: int
    host_memory: int = 0
    ssd: int = 0

    def __str__(self) -> str:
        """8 ranks on 1 host."""
        plural = lambda n, what: f"{n} {what}{'s' * (n != 1)}"
        return f"{plural(self.world_size, 'rank')} on {plural(self.hosts, 'host')}"

    def group(self, replicas: int) -> "Cluster":
        """The ranks that hold one of so many replicas: those of whole hosts, or some of a host."""
        hosts = self.hosts // replicas if self.hosts % replicas == 0 else 1
        return replace(self, world_size=self.world_size // replicas, hosts=hosts)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRequest:
    """What is to be planned. batch_size: samples per rank and step. dense_bytes: of each rank's memory, for all but
    tables. dense_flops: of each rank's step, for all but tables; 0 where no one asks how long that takes. written:
    tables whose rows a hook reads or writes beside the lookup."""

    features: FeatureSet
    sharding: ShardingConfig
    optimizer: TablesConfig
    batch_size: int
    dense_bytes: int
    cluster: Cluster
    dense_flops: int = 0
    written: frozenset[str] = frozenset()

    @property
    def group(self) -> Cluster:
        """The ranks among which the tables are spread: all, or those of one replica."""
        return self.cluster.group(self.sharding.replicas)

    @property
    def usable(self) -> int:
        """Bytes of a rank that may be filled."""
        return int(self.cluster.memory * (1 - self.sharding.memory_margin))

    @property
    def usable_host(self) -> int:
        """Bytes per rank, of the host's memory beside the GPUs, that tables may fill: the maps of ids lie there too."""
        return max(0, self.host_free - self.host_maps)

    @property
    def host_free(self) -> int:
        """The same, of tables and maps together."""
        return int(self.cluster.host_memory * (1 - self.sharding.memory_margin))

    @property
    def host_maps(self) -> int:
        """Bytes per rank of the maps of ids."""
        return sum(map(self.map_bytes, self.features.tables))

    @property
    def usable_ssd(self) -> int:
        """Bytes per rank, of SSD, that tables may fill."""
        return int(self.cluster.ssd * (1 - self.sharding.memory_margin))

    def memories(self, table: Table) -> list[Memory]:
        """What may hold a table's rows, the fastest first."""
        asked, c = self.sharding.memory_of(table), self.cluster
        if asked != "auto":
            return [asked]
        given: dict[Memory, int] = {"hbm": 1, "uvm_caching": c.host_memory, "uvm": c.host_memory, "ssd": c.ssd}
        if self.sharding.replicas > 1 or c.device == "cpu":
            return ["hbm"]
        return [m for m, room in given.items() if room and not bar(m, table, self.optimizer, self.written)]

    def held(self, memory: Mapping[str, Memory]) -> "PlanRequest":
        """The request with one choice of what holds each table's rows."""
        return replace(self, sharding=replace(self.sharding, memory=dict(memory)))

    @property
    def nearest(self) -> "PlanRequest":
        """The request with every table in the fastest memory that it may have."""
        return self.held({t.name: self.memories(t)[0] for t in self.features.tables})

    @property
    def spills(self) -> bool:
        """Whether a table may lie elsewhere than in `nearest`."""
        return any(len(self.memories(t)) > 1 for t in self.features.tables)

    def kernels(self, table: str) -> list[str]:
        """The kernels, by TorchRec's names, that the planner may choose from for a table that is not copied."""
        return [KERNELS[memory] for memory in self.memories(self.features.table(table))]

    def stored(self, kernel: str, rows: int, columns: int) -> Stored:
        """Where a part of a table lies, in bytes."""
        return stored(kernel, self.optimizer.kind, rows, columns, self.sharding.cache_share)

    def map_bytes(self, table: Table) -> int:
        """Bytes of what says which row an id has, in the host's memory, on a rank, at most: of the first rank, which
        has as much as any. Without exact counts of ids that wait, as many as there are."""
        share = Share(0, self.cluster.world_size if self.sharding.id_maps == "sharded" else 1)
        with torch.device("meta"):
            declared = sum(b.nbytes for b in map_of(table, share).buffers())
        # A growing table has as many ids as rows, once it is full.
        ids = table.rows * len(share.blocks(BLOCKS)) // BLOCKS if table.mapping == "growing" else 0
        return declared + ids * ID_AND_ROW_BYTES

    @property
    def fixed_bytes(self) -> int:
        """Bytes of each rank's memory that no plan changes: the dense part and, where memory is the host's, the maps of
        ids."""
        maps = sum(map(self.map_bytes, self.features.tables)) if self.cluster.device == "cpu" else 0
        return self.dense_bytes + maps

    @property
    def dense_milliseconds(self) -> float:
        """About how long a rank computes in a step, but for tables."""
        return self.dense_flops / _FLOPS[self.cluster.device]

    @property
    def unpooled(self) -> frozenset[str]:
        """Tables that are read un-pooled: those that a sequence reads, but for copies, of which nothing travels."""
        if self.sharding.sequences != "unpooled":
            return frozenset()
        return frozenset(t for t in self.of_sequences if self._allowed(self.features.table(t)) != ["data_parallel"])

    @property
    def of_sequences(self) -> list[str]:
        """Tables that a sequence reads."""
        return list(dict.fromkeys(f.table_name for f in self.features.sparse if f.role == "sequence"))

    def ways(self) -> "list[PlanRequest]":
        """The request with each way to read sequences that may be planned."""
        if self.sharding.sequences != "auto":
            return [self]
        way = lambda how: replace(self, sharding=replace(self.sharding, sequences=how))
        bags: Sequences = "bags"
        alone = self.cluster.device == "cpu" and self.cluster.world_size == 1
        return [way(bags)] if alone or not way("unpooled").unpooled else [way("unpooled"), way(bags)]

    @property
    def copies(self) -> bool:
        """Whether tables may be copied to every rank: Adam and clipping are things that the fused optimizers do, and
        those of copied tables cannot."""
        return self.optimizer.kind != "adam" and not self.optimizer.clip_value

    def choices(self) -> dict[str, list[str]]:
        """Table -> the sharding types, by TorchRec's names, that the planner may choose from."""
        return {
            t.name: list(dict.fromkeys(self._filled(t, self._looked_up(t, way)) for way in self._allowed(t)))
            for t in self.features.tables
        }

    def _looked_up(self, table: Table, way: str) -> str:
        """A sharding type, or what trains like it where TorchRec has it for bags alone."""
        of_bags = {"table_row_wise": "row_wise", "grid_shard": "column_wise"}
        return of_bags.get(way, way) if table.name in self.unpooled else way

    def _filled(self, table: Table, way: str) -> str:
        """A sharding type, or what trains like it where ranks would be left without rows of the table: with an empty
        part FBGEMM 1.8 reads beyond the sizes of its tables."""
        ranks = self.group.world_size
        parts = {"row_wise": ranks}.get(way, ranks // self.group.hosts)
        whole = {"row_wise": "table_wise", "table_row_wise": "table_wise", "grid_shard": "column_wise"}
        block = -(-table.rows // parts)
        return whole.get(way, way) if (parts - 1) * block >= table.rows else way

    def _allowed(self, table: Table) -> list[str]:
        choice, several = self.sharding.choice(table.name), self.group.hosts > 1
        if choice == "auto":
            if self.group.world_size == 1:
                return ["table_wise"]
            several = several and self.sharding.replicas == 1
            copies = self.copies and self.sharding.memory_of(table) in ("auto", "hbm")
            if copies and self.sharding.is_small(table):
                return ["data_parallel"]
            return ["table_wise", "row_wise", *(["table_row_wise"] if several else [])]
        if choice == "grid":
            return ["grid_shard" if several else "column_wise"]
        if choice == "table_row_wise":
            return ["table_row_wise" if several else "row_wise"]
        return [choice]
