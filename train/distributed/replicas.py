"""Replicas of the sharded tables: TorchRec's 2D parallel.

The ranks make groups of ranks in a row. Each group holds all sharded tables, spread by one plan, and trains them on the
rows of its ranks; after some steps the groups' weights and what the optimizer holds are averaged. Everything else,
dense weights and copied tables, has the gradient of all ranks.
"""

from torchrec.distributed.model_parallel import DistributedModelParallel, DMPCollection


class Replicas:
    """Averages the replicas of a model. Every call is made by all ranks at the same step; nothing is done for a model
    that has one."""

    def __init__(self, model: DistributedModelParallel, every: int) -> None:
        """every: steps between two averages."""
        self.model = model if isinstance(model, DMPCollection) else None
        self.every, self.since = every, 0

    def end_step(self) -> None:
        """After a step: averages if it is due."""
        self.since += 1
        if self.since == self.every:
            self.average()

    def average(self) -> None:
        """Before the tables are read by others: a checkpoint, an evaluation. Steps are counted anew from here, as in a
        run that goes on from it."""
        if self.model is not None and self.since:
            self.model.sync()
        self.since = 0
