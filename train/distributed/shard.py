"""Process group, sharding plan and DistributedModelParallel; the same code for one rank and for many."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import HashStore
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import ShardingPlan

from coldrank.data.errors import UserError
from coldrank.models.features import FeatureSet
from coldrank.train.config import RunConfig
from coldrank.train.distributed.dense import dense_bytes
from coldrank.train.distributed.fit import shortage
from coldrank.train.distributed.plan import Plan
from coldrank.train.distributed.request import Cluster, Request
from coldrank.train.distributed.search import Sharder, make_plan, quiet
from coldrank.train.optim.table_optimizer import fused_params, scale_rates
from coldrank.train.task import RankingTask

# Rows of a table are initialised in blocks of this size, each from a seed of its own: any shard of any plan starts equal.
_INIT_BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Joins the job that torchrun or torchx started, or makes a group of one; leaves it at the end.

    Raises UserError where torchrun has started the ranks again and they could not find each other.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    backend = "nccl" if cuda else "gloo"
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if again and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # torch 2.13 hands the dead ranks' addresses to those that it starts in their place, which then wait for nobody.
        raise UserError(
            "torchrun started the ranks again; for that, set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun"
        )
    if "RANK" in os.environ and "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend)
    else:
        # A store inside the process: a single rank needs no port.
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def shard(
    task: RankingTask, ranks: Ranks, config: RunConfig, features: FeatureSet
) -> tuple[DistributedModelParallel, Plan]:
    """Shards the tables as the config says and the planner finds, and initialises them from the seed.

    The tables' optimizer is fused with the backward pass. The dense part has to be on the CPU still. Raises UserError, on every
    rank, if the tables do not fit.
    """
    plan = _agreed_plan(task, ranks, config, features)
    sharder = Sharder(fused_params=fused_params(config.optim, ranks.device))
    scale_rates(task.embeddings.ebc, config.optim)
    for name, part in task.named_children():
        if name != "embeddings":
            part.to(ranks.device)
    sharding = ShardingPlan({"embeddings.ebc": plan.module})
    with quiet():
        model = DistributedModelParallel(
            task,
            device=ranks.device,
            plan=sharding,
            sharders=[sharder],
            init_data_parallel=ranks.world_size > 1,  # a single rank has nothing to average
            init_parameters=False,
        )
    init_tables(model, config.table_scales(features), config.seed)
    return model, plan


def _agreed_plan(task: RankingTask, ranks: Ranks, config: RunConfig, features: FeatureSet) -> Plan:
    """The first rank's plan, for all: hosts may differ in memory."""
    agreed: list[Plan | str] = [""]
    if ranks.is_first:
        try:
            agreed = [plan_for(task, ranks, config, features)]
        except UserError as error:
            agreed = [str(error)]
    dist.broadcast_object_list(agreed)
    if isinstance(agreed[0], str):
        raise UserError(agreed[0])
    return agreed[0]


def plan_for(task: RankingTask, ranks: Ranks, config: RunConfig, features: FeatureSet) -> Plan:
    """Where the tables would lie on a cluster of hosts like this one. Raises UserError if they do not fit."""
    batch = config.data.rank_batch(ranks.world_size)
    request = Request(
        features=features,
        sharding=config.sharding,
        optim=config.optim,
        batch_size=batch,
        dense_bytes=dense_bytes(task, features, -(-batch // config.train.accumulate)),
        cluster=_cluster(ranks),
    )
    plan = make_plan(request)
    if plan is None:
        raise UserError(f"{config.name}: {shortage(request)}; `coldrank plan` says what would make it fit")
    return plan


def _cluster(ranks: Ranks) -> Cluster:
    local = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.world_size))
    gpu = ranks.device.type == "cuda"
    return Cluster(
        device="cuda" if gpu else "cpu",
        world_size=ranks.world_size,
        hosts=ranks.world_size // local,
        memory=torch.cuda.get_device_properties(ranks.device).total_memory if gpu else _host_memory() // local,
    )


def _host_memory() -> int:
    """Bytes of this host, or of the container if it is allowed less."""
    allowed = Path("/sys/fs/cgroup/memory.max")
    limit = allowed.read_text().strip() if allowed.exists() else "max"
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(host, int(limit)) if limit.isdigit() else host


def table_of(name: str) -> str:
    """Table of a parameter, by the parameter's name; '' for a dense one."""
    return name.partition(".embedding_bags.")[2].rpartition(".")[0]


@torch.no_grad()
def init_tables(model: nn.Module, scales: dict[str, float], seed: int) -> None:
    """Fills every local shard, or copy, with N(0, scale^2), a function of (seed, table, row, column) alone.

    scales: table -> standard deviation.
    """
    for name, value in model.state_dict().items():
        if not (table := table_of(name)):
            continue
        width = whole_shape(value)[1]
        for part, (row, column) in local_parts(value):
            rows, dim = part.shape
            for block in range(row // _INIT_BLOCK, -(-(row + rows) // _INIT_BLOCK)):
                full = drawn(seed, table, block, _INIT_BLOCK, width) * scales[table]
                low, high = max(row, block * _INIT_BLOCK), min(row + rows, (block + 1) * _INIT_BLOCK)
                piece = full[low - block * _INIT_BLOCK : high - block * _INIT_BLOCK, column : column + dim]
                part[low - row : high - row].copy_(piece)


def whole_shape(value: torch.Tensor | ShardedTensor) -> list[int]:
    """Shape of a tensor, over all ranks if it is sharded."""
    return list(value.metadata().size if isinstance(value, ShardedTensor) else value.shape)


def local_parts(value: torch.Tensor | ShardedTensor) -> list[tuple[torch.Tensor, list[int]]]:
    """What this rank holds of a sharded or copied tensor, and where each part begins."""
    if isinstance(value, ShardedTensor):
        return [(s.tensor, s.metadata.shard_offsets) for s in value.local_shards()]
    return [(value, [0] * value.dim())]


def drawn(seed: int, what: str, number: int, rows: int, width: int) -> torch.Tensor:
    """N(0, 1), float32 [rows, width], a function of the arguments alone."""
    mixed = seed
    for byte in (*what.encode(), *number.to_bytes(8, "little")):
        mixed = (mixed * 1_000_003 + byte) % (1 << 61)
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(mixed))
