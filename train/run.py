"""The parts of a run on one rank, and how they are made."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchrec.distributed.model_parallel import DistributedModelParallel

from coldrank.data.batches import BatchMaker, DataFolder
from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import FeatureSet
from coldrank.models.ids.mixing import Share
from coldrank.train import checkpoint
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig
from coldrank.train.distributed.plan import Plan
from coldrank.train.distributed.ranks import Ranks
from coldrank.train.distributed.replicas import Replicas
from coldrank.train.distributed.shard import shard
from coldrank.train.distributed.tables import stored_names
from coldrank.train.hooks.hook import HookModule
from coldrank.train.hooks.make import make_hooks
from coldrank.train.ids.dynamic import DynamicIds
from coldrank.train.ids.eviction import Renewal
from coldrank.train.memory import reuse_freed_memory
from coldrank.train.optim.optimizers import Optimizers
from coldrank.train.progress import Progress
from coldrank.train.stepping import Taken
from coldrank.train.task import RankingTask


@dataclass(slots=True)
class Run:
    """A run's parts, on one rank."""

    config: RunConfig
    data: DataFolder
    ranks: Ranks
    encoder: FeatureEncoder
    model: DistributedModelParallel
    optimizers: Optimizers
    make: BatchMaker
    plan: Plan
    dynamic_ids: DynamicIds
    hooks: tuple[HookModule, ...]
    replicas: Replicas

    @property
    def task(self) -> RankingTask:
        """What the model shards."""
        task = self.model.module
        assert isinstance(task, RankingTask)
        return task

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint holds. Called by all ranks."""
        optimizers = self.optimizers.all.state_dict()
        return {
            "model": stored_names(self.model.state_dict()),
            "optimizers": optimizers | {"state": stored_names(optimizers["state"])},
            "encoder": self.dynamic_ids.state(),
        }

    def begin_step(self, taken: Taken, step: int, total: int) -> None:
        """What comes before the forward pass of step `step` (0-based) of `total`."""
        self.optimizers.begin_step(step, total)
        for hook in self.hooks:
            hook.before_step(self, taken)

    def end_step(self) -> None:
        """What comes after the backward pass."""
        self.optimizers.end_step()
        self.replicas.end_step()
        for hook in self.hooks:
            hook.after_step(self)

    def state_after(self, taken: Taken) -> dict[str, Any]:
        """The state once a batch is trained on, though later ones may have their rows already."""
        return self.state | {"encoder": self.dynamic_ids.state(taken.new_rows)}

    def load(self, folder: Path, of_rank: dict[str, Any]) -> Progress:
        """`checkpoint.load` of the last checkpoint in a folder that can be used."""
        state = self.state
        progress = checkpoint.load(folder, state, of_rank, self.ranks, self.dynamic_ids.sized)
        self.dynamic_ids.take(state["encoder"])
        return progress


def build(config: RunConfig, data: DataFolder, ranks: Ranks) -> Run:
    """The parts of a run before its first step, a function of config and seed alone. The encoder is not fitted yet."""
    reuse_freed_memory()
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    features, data = validate(config), data.read_since(config.data.since)
    several = ranks.world_size > 1 and config.sharding.id_maps == "sharded"
    encoder = FeatureEncoder(features, Share(ranks.rank, ranks.world_size) if several else None)
    hooks = make_hooks(config, features)
    # No memory for whole tables here: the sharder makes each rank's part.
    task = made_task(config, features, hooks)
    model, plan = shard(task, ranks, config, features)
    truths, unpooled = data.truths(config.tasks), task.embeddings.unpooled
    make = BatchMaker(encoder, config.tasks, truths, config.data.weight_column, unpooled)
    # From here on the generator drops out: on every rank in its own way, in every arm in the same.
    torch.manual_seed(config.seed * 1_000_003 + ranks.rank)
    optimizers = Optimizers(model, config.optim, {h.short_name(): h.own_lr_scale for h in config.hooks})
    dynamic_ids = DynamicIds(encoder, ranks, Renewal(model, optimizers, config.table_scales(features), config.seed))
    replicas = Replicas(model, config.sharding.sync_every)
    run = Run(config, data, ranks, encoder, model, optimizers, make, plan, dynamic_ids, tuple(hooks.values()), replicas)
    for hook in run.hooks:
        hook.placed(run)
    return run


def made_task(config: RunConfig, features: FeatureSet, hooks: dict[str, HookModule]) -> RankingTask:
    """The model of a run, with tables that have no memory yet."""
    return RankingTask(
        features,
        config.model,
        config.tasks,
        device=torch.device("meta"),
        cold_weight=config.cold_weight,
        new_user_max_views=config.cohorts.new_user_max_views,
        accumulate=config.train.accumulate,
        bf16=config.train.precision == "bf16",
        hooks=hooks,
    )
