"""A plan: which part of which table lies on which rank, and what that costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torchrec.distributed.types import EmbeddingModuleShardingPlan

from coldrank.models.features import Table
from coldrank.train.distributed.memory import FLOAT_BYTES, Stored
from coldrank.train.distributed.request import PlanRequest


class Shard(NamedTuple):
    """A part of a table on a rank. exchange: bytes of the ids and embeddings that a step moves through it.
    milliseconds: the planner's estimate of its work per step; moving: how much of it is the exchange."""

    rank: int
    rows: int
    columns: int
    exchange: int
    milliseconds: float
    moving: float


class Placed(NamedTuple):
    """A table, how it is sharded, by TorchRec's names, and its shards (of data_parallel: one copy per rank)."""

    table: Table
    sharding: str
    kernel: str
    shards: tuple[Shard, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """modules: the plan as TorchRec takes it, by the collection's path in the EmbeddingStage. placed: the same as it
    can be shown. other: the plan with sequences read the other way, where both were tried and it fits."""

    request: PlanRequest
    modules: dict[str, EmbeddingModuleShardingPlan]
    placed: tuple[Placed, ...]
    other: "Plan | None" = None

    @property
    def sequences(self) -> str:
        """How sequences are read: bags, also where every table that they read is copied, or unpooled."""
        return "unpooled" if self.request.unpooled else "bags"

    def memory(self) -> dict[str, np.ndarray]:
        """Kind -> bytes on every rank of a replica, float64 [ranks]; last their sum. Tables: of those in the host's
        memory or on an SSD the caches. Gradients: of data_parallel tables, whose are dense. Maps of ids: not beside
        GPUs, where they lie in the host's memory."""
        world_size = self.request.group.world_size
        copies = [s for p in self.placed if p.sharding == "data_parallel" for s in p.shards]
        parts = {
            "tables": self._stored("weights"),
            "optimizer of the tables": self._stored("state"),
            "gradients of copied tables": self._by_rank([(s.rank, s.rows * s.columns * FLOAT_BYTES) for s in copies]),
            "ids and embeddings": self.exchange,
            "dense part": np.full(world_size, float(self.request.dense_bytes)),
        }
        if self.request.cluster.device == "cpu":
            parts["maps of ids"] = np.full(world_size, float(self.request.fixed_bytes - self.request.dense_bytes))
        return parts | {"all": np.sum(list(parts.values()), axis=0)}

    def beside(self) -> dict[str, np.ndarray]:
        """Of the memory beside the GPUs, host and ssd -> bytes of tables and what the optimizer holds of them on every
        rank of a replica, float64 [ranks]."""
        return {what: self._stored(what) for what in ("host", "ssd")}

    def _stored(self, what: str) -> np.ndarray:
        parts: list[tuple[int, Stored]] = [
            (s.rank, self.request.stored(p.kernel, s.rows, s.columns)) for p in self.placed for s in p.shards
        ]
        return self._by_rank([(rank, getattr(part, what)) for rank, part in parts])

    @property
    def averaged(self) -> np.ndarray:
        """Bytes of weights and optimizer that the replicas average, float64 [ranks]: of all tables but copies."""
        shards = [(p.kernel, s) for p in self.placed if p.sharding != "data_parallel" for s in p.shards]
        return self._by_rank([(s.rank, sum(self.request.stored(k, s.rows, s.columns))) for k, s in shards])

    @property
    def exchange(self) -> np.ndarray:
        """Bytes of ids and embeddings that a step moves through every rank, float64 [ranks]."""
        return self._by_rank([(s.rank, s.exchange) for p in self.placed for s in p.shards])

    def work(self) -> np.ndarray:
        """Estimated milliseconds of every rank per step on the tables, float64 [ranks]."""
        return self._by_rank([(s.rank, s.milliseconds) for p in self.placed for s in p.shards])

    def moving(self) -> np.ndarray:
        """How much of `work` is the exchange with other ranks, float64 [ranks]."""
        if self.request.group.world_size == 1:
            return np.zeros(1)  # the planner counts what a rank would send to itself
        return self._by_rank([(s.rank, s.moving) for p in self.placed for s in p.shards])

    @property
    def balance(self) -> float:
        """Work of the busiest rank over the mean; 1 is even."""
        work = self.work()
        return float(work.max() / work.mean())

    def _by_rank(self, amounts: Sequence[tuple[int, float]]) -> np.ndarray:
        ranks = np.array([rank for rank, _ in amounts], dtype=int)
        return np.bincount(ranks, [amount for _, amount in amounts], self.request.group.world_size)
