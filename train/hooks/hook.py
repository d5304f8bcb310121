"""What a training method can take part in: the step's graph, what comes before and after a step, and the periods of a stream.

A hook is a module of the task, `task.hooks[name]`. Its parameters are trained with the dense part and averaged over the ranks,
its buffers are in every checkpoint. All that is called here is called on every rank. `RunConfig.hooks` names the hooks that are
on and their order: the embeddings pass through them from the first to the last, and the first one is the outermost
around the dense part.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded

if TYPE_CHECKING:  # these hold hooks
    from coldrank.train.checkpoint import Progress
    from coldrank.train.stepping import Taken
    from coldrank.train.streaming import Stage
    from coldrank.train.task import Outputs, RankingTask
    from coldrank.train.trainer import Run

Dense = Callable[[Batch, Embedded], "Outputs"]


class Hook(nn.Module):
    """Takes part in nothing: a hook overrides what it needs.

    slices: whether the dense part may take a batch in slices (`train.accumulate`); False for a hook that compares rows.
    """

    slices: ClassVar[bool] = True

    def embed(self, task: "RankingTask", batch: Batch, embedded: Embedded) -> Embedded:
        """What the next hook and the model see in the place of the embeddings; in the graph, in training and evaluation."""
        return embedded

    def dense(self, task: "RankingTask", rest: Dense, batch: Batch, embedded: Embedded) -> "Outputs":
        """Logits and loss; in the graph, in training and evaluation. rest: the hooks after this one, then ranker and loss."""
        return rest(batch, embedded)

    def before_step(self, run: "Run", taken: "Taken") -> None:
        """Before a batch is looked up."""

    def after_step(self, run: "Run") -> None:
        """After all weights are updated, before a checkpoint can be written."""

    def begins(self, run: "Run", stage: "Stage", progress: "Progress") -> None:
        """Once a period is scored, before its first step."""

    def ends(self, run: "Run", stage: "Stage", progress: "Progress") -> None:
        """After a period's last step; again when a run resumes there."""
