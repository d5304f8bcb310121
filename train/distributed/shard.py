"""Sharding plan and DistributedModelParallel; the same code for one rank and for many."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel, DMPCollection
from torchrec.distributed.types import ModuleSharder, ShardingPlan

from coldrank.data.errors import UserError
from coldrank.models.embeddings import EmbeddingStage
from coldrank.models.features import FeatureSet
from coldrank.train.config import RunConfig
from coldrank.train.distributed.dense import dense_bytes
from coldrank.train.distributed.fit import shortage
from coldrank.train.distributed.plan import Plan
from coldrank.train.distributed.ranks import Ranks, made_by_first
from coldrank.train.distributed.refused import cluster_problem
from coldrank.train.distributed.request import Cluster, PlanRequest
from coldrank.train.distributed.search import make_plan
from coldrank.train.distributed.space import Sharder, UnpooledSharder, quiet
from coldrank.train.distributed.tables import init_tables
from coldrank.train.optim.table_optimizer import fused_params, scale_rates
from coldrank.train.task import RankingTask


def shard(
    task: RankingTask, ranks: Ranks, config: RunConfig, features: FeatureSet
) -> tuple[DistributedModelParallel, Plan]:
    """Shards the tables as the config says and the planner finds, and initialises them from the seed.

    The tables' optimizer is fused with the backward pass. The dense part has to be on the CPU still. Raises UserError,
    on every rank, if the tables do not fit.
    """
    # The first rank's, for all: hosts may differ in memory.
    plan = made_by_first(ranks, lambda: plan_for(task, ranks, config, features))
    if plan.request.unpooled:
        # FBGEMM clips what each read of a row gets: then no read stands for several.
        distinct = not config.optim.tables.clip_value
        task.embeddings = EmbeddingStage(features, torch.device("meta"), plan.request.unpooled, distinct=distinct)
    fused = fused_params(config.optim.tables, ranks.device)
    scale_rates(task.embeddings.table_modules, config.optim.tables)
    for name, part in task.named_children():
        if name != "embeddings":
            part.to(ranks.device)
    sharding = ShardingPlan({f"embeddings.{path}": module for path, module in plan.modules.items()})
    sharders: list[ModuleSharder[nn.Module]] = [Sharder(fused_params=fused), UnpooledSharder(fused_params=fused)]
    with quiet():
        model = _distributed(task, ranks, sharding, sharders, plan.request)
    init_tables(model, config.table_scales(features), config.seed)
    return model, plan


def _distributed(
    task: RankingTask,
    ranks: Ranks,
    sharding: ShardingPlan,
    sharders: list[ModuleSharder[nn.Module]],
    request: PlanRequest,
) -> DistributedModelParallel:
    if request.sharding.replicas == 1:
        return DistributedModelParallel(
            task,
            device=ranks.device,
            plan=sharding,
            sharders=sharders,
            init_data_parallel=ranks.world_size > 1,  # a single rank has nothing to average
            init_parameters=False,
        )
    assert dist.group.WORLD is not None
    return DMPCollection(
        task,
        device=ranks.device,
        plan=sharding,
        world_size=ranks.world_size,
        sharding_group_size=request.group.world_size,
        global_pg=dist.group.WORLD,
        sharders=sharders,
        init_parameters=False,
        # Groups of ranks in a row: lookups stay within hosts where they can, and averages, which are rarer, do not.
        use_inter_host_allreduce=True,
    )


def plan_for(task: RankingTask, ranks: Ranks, config: RunConfig, features: FeatureSet) -> Plan:
    """Where the tables would lie on a cluster of hosts like this one. Raises UserError if they do not fit."""
    batch = config.data.rank_batch(ranks.world_size)
    request = PlanRequest(
        features=features,
        sharding=config.sharding,
        optimizer=config.optim.tables,
        batch_size=batch,
        dense_bytes=dense_bytes(task, features, -(-batch // config.train.accumulate)),
        cluster=_cluster(ranks),
        written=config.written_tables,
    )
    if wrong := cluster_problem(request):
        raise UserError(f"{config.name}: {wrong}")
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
        host_memory=_host_memory() // local if gpu else 0,
    )


def _host_memory() -> int:
    """Bytes of this host, or of the container if it is allowed less."""
    allowed = Path("/sys/fs/cgroup/memory.max")
    limit = allowed.read_text().strip() if allowed.exists() else "max"
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(host, int(limit)) if limit.isdigit() else host
