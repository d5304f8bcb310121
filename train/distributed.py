"""Process group, sharding plan and DistributedModelParallel; the same code for one rank and for many."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import HashStore
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, table_wise
from torchrec.distributed.types import ShardingPlan

from coldrank.train.config import OptimConfig
from coldrank.train.table_optimizer import fused_params, scale_rates
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
    """Joins the job that torchrun or torchx started, or makes a group of one; leaves it at the end."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    backend = "nccl" if cuda else "gloo"
    if "RANK" in os.environ and "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend)
    else:
        # A store inside the process: a single rank needs no port.
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def shard(task: RankingTask, ranks: Ranks, optim: OptimConfig, seed: int) -> DistributedModelParallel:
    """Shards the tables, whole tables round-robin by size, and initialises them from the seed.

    The tables' optimizer is fused with the backward pass.
    """
    sharder = EmbeddingBagCollectionSharder(fused_params=fused_params(optim, ranks.device))
    scale_rates(task.embeddings.ebc, optim)
    configs = task.embeddings.ebc.embedding_bag_configs()
    by_size = sorted(configs, key=lambda c: -c.num_embeddings * c.embedding_dim)
    fused = EmbeddingComputeKernel.FUSED.value
    placement = {c.name: table_wise(rank=i % ranks.world_size, compute_kernel=fused) for i, c in enumerate(by_size)}
    local = torch.cuda.device_count() if ranks.device.type == "cuda" else ranks.world_size
    module_plan = construct_module_sharding_plan(
        task.embeddings.ebc, placement, sharder, local, ranks.world_size, ranks.device.type
    )
    for name, part in task.named_children():
        if name != "embeddings":
            part.to(ranks.device)
    model = DistributedModelParallel(
        task,
        device=ranks.device,
        plan=ShardingPlan({"embeddings.ebc": module_plan}),
        sharders=[sharder],
        init_parameters=False,
    )
    scales = {t.name: t.init or optim.table_init for t in task.embeddings.tables}
    init_tables(model, scales, seed)
    return model


@torch.no_grad()
def init_tables(model: nn.Module, scales: dict[str, float], seed: int) -> None:
    """Fills every local shard with N(0, scale^2), a function of (seed, table, row, column) alone.

    scales: table -> standard deviation.
    """
    for name, value in model.state_dict().items():
        if ".embedding_bags." not in name:
            continue
        table = name.split(".embedding_bags.")[1].rsplit(".", 1)[0]
        for local in value.local_shards():
            (row, column), (rows, dim) = local.metadata.shard_offsets, local.metadata.shard_sizes
            width = value.metadata().size[1]
            for block in range(row // _INIT_BLOCK, -(-(row + rows) // _INIT_BLOCK)):
                full = _init_block(seed, table, block, width) * scales[table]
                low, high = max(row, block * _INIT_BLOCK), min(row + rows, (block + 1) * _INIT_BLOCK)
                piece = full[low - block * _INIT_BLOCK : high - block * _INIT_BLOCK, column : column + dim]
                local.tensor[low - row : high - row].copy_(piece)


def _init_block(seed: int, table: str, block: int, width: int) -> torch.Tensor:
    mixed = seed
    for byte in (*table.encode(), *block.to_bytes(8, "little")):
        mixed = (mixed * 1_000_003 + byte) % (1 << 61)
    return torch.randn(_INIT_BLOCK, width, generator=torch.Generator().manual_seed(mixed))
