"""Whether a run could begin, found out without its memory or its time: of many runs all are asked before the first
starts."""

import json
from pathlib import Path

import torch

from coldrank.data.batches import BatchMaker, DataFolder
from coldrank.data.errors import UserError
from coldrank.data.read import SampleReader
from coldrank.models.encode import FeatureEncoder
from coldrank.train import checkpoint
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig, to_dict
from coldrank.train.distributed.ranks import Ranks
from coldrank.train.distributed.shard import plan_for
from coldrank.train.evaluate import evaluation_reader
from coldrank.train.hooks.make import make_hooks
from coldrank.train.optim.table_optimizer import fused_params
from coldrank.train.passes import Passes
from coldrank.train.run import made_task
from coldrank.train.streaming import stages


def check_run(config: RunConfig, data: DataFolder) -> None:
    """Makes the parts of a run on one process, but for what takes memory, and opens what it reads. Raises UserError for
    what cannot be: settings, hooks, model, optimizer, memory for the tables, splits, columns, files, another run's
    weights."""
    features, data = validate(config), data.read_since(config.data.since)
    task = made_task(config, features, make_hooks(config, features))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ranks = Ranks(0, 1, device)
    fused_params(config.optim.tables, device)
    if device.type == "cpu":
        plan_for(task, ranks, config, features)
    encoder, truths = FeatureEncoder(features), data.truths(config.tasks)
    make = BatchMaker(encoder, config.tasks, truths, config.data.weight_column)
    if config.train.mode == "periods":
        files = data.paths(p for stage in stages(data, config) for p in stage.partitions)
        SampleReader(files, make.columns(training=True), config.data.batch_size)
    else:
        Passes.of(config, data, make, ranks)
        evaluation_reader(make, data, config.data.evaluate, config, ranks)
    if (other := config.train.warm_start) and not checkpoint.steps(Path(other) / "checkpoints"):
        raise UserError(f"train.warm_start={other}: holds no run with a checkpoint")


class Checks:
    """`check_run` of many runs on the same data, once for those that differ in seed, name and rates alone."""

    def __init__(self, data: DataFolder) -> None:
        self.data = data
        self.done: set[str] = set()

    def check(self, what: str, config: RunConfig) -> None:
        """what: how an error names the run."""
        values = to_dict(config)
        kept = {name: values["optim"]["tables"][name] for name in ("kind", "lr_scale", "clip_value")}
        key = json.dumps(values | {"seed": 0, "name": "", "optim": kept})
        if key in self.done:
            return
        try:
            check_run(config, self.data)
        except UserError as error:
            raise UserError(f"{what}: {error}") from None
        except Exception as error:  # whatever a model or hook of one's own raises when it is made
            raise UserError(f"{what}: cannot be built ({type(error).__name__}: {error})".splitlines()[0]) from error
        self.done.add(key)
