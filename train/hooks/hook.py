"""What a training method can take part in: the step's graph, what comes before and after a step, and the periods of a stream.

A hook is a module of the task, `task.hooks[name]`. Its parameters are trained with the dense part and averaged over the ranks,
its buffers are in every checkpoint. All that is called here is called on every rank. `RunConfig.hooks` names the hooks that are
on and their order: the embeddings pass through them from the first to the last, and the first one is the outermost
around the dense part.

A batch has one pass of its own. A hook may make others beside it, *side passes*, from which nothing is kept: their rows and
embeddings may be others than the batch's (MWUF's second pass, with warm embeddings). Their loss has gradients like any other.

Where state may lie: what outlives a step, in buffers, written outside the graph (`before_step`, `after_step`, `begins`,
`ends`). What `embed` or `dense` finds for `after_step`, in a plain attribute, written in the batch's own pass while it is
trained on (`self.training and torch.is_grad_enabled()`, and in `dense` not `rest.side`), and taken away by `after_step`.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel

from coldrank.data.batches import DataFolder
from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded, EmbeddingStage
from coldrank.models.encode import FeatureEncoder
from coldrank.models.two_tower import TwoTower
from coldrank.modules.losses import MaskedBCE
from coldrank.train.config import RunConfig
from coldrank.train.distributed.ranks import Ranks
from coldrank.train.optim.optimizers import Optimizers
from coldrank.train.outputs import Outputs
from coldrank.train.progress import Progress, Stage
from coldrank.train.stepping import Taken


class Task(Protocol):
    """What hooks see of the task that they are in: the lookup, the model and its loss."""

    embeddings: EmbeddingStage
    ranker: nn.Module
    loss: MaskedBCE


class Run(Protocol):
    """What hooks see of the run that they are in."""

    config: RunConfig
    data: DataFolder
    ranks: Ranks
    encoder: FeatureEncoder
    model: DistributedModelParallel
    optimizers: Optimizers


# Logits and loss; the last argument says whether they are of a side pass.
Rank = Callable[[Batch, Embedded, bool], Outputs]


class Rest:
    """What is inside a hook's `dense`: the hooks after it, and innermost `rank`, the model and its loss.

    side: whether the pass that the hook is in is a side pass; all that is called inside of one is.
    """

    def __init__(self, task: Task, hooks: Sequence["Hook"], rank: Rank, *, side: bool = False) -> None:
        self.side = side
        self._task, self._hooks, self._rank = task, tuple(hooks), rank
        self._replaced = False
        self._calls: list[None] = []  # of the batch's own pass, shared with what is `around` another function

    def __call__(self, batch: Batch, embedded: Embedded) -> Outputs:
        """Goes on with the pass that the hook is in: once, with the rows that the hook was given."""
        self._calls.append(None)
        return self._go(batch, embedded, side=self.side)

    def aside(self, batch: Batch, embedded: Embedded) -> Outputs:
        """A side pass, after the own one, of the whole batch or, where `by_rows`, of some of its rows (`train.slices.rows_of`).
        Every rank makes it or none, unless `by_rows`: what is inside may add up over the ranks."""
        return self._go(batch, embedded, side=True)

    def around(self, rank: Rank) -> "Rest":
        """The same hooks around another model and loss: what trains or scores in its own way has the hooks inside it do what
        they do to that. `rank` is called once in the batch's own pass, before any side pass."""
        other = Rest(self._task, self._hooks, rank, side=self.side)
        other._replaced, other._calls = True, self._calls
        return other

    @property
    def by_rows(self) -> bool:
        """Whether all inside treats a row without regard to the others of the batch, and needs no `sparse` part."""
        model = not self._replaced and not isinstance(self._task.ranker, TwoTower)
        return model and all(hook.slices for hook in self._hooks)

    def _go(self, batch: Batch, embedded: Embedded, *, side: bool) -> Outputs:
        if not self._hooks:
            return self._rank(batch, embedded, side)
        hook, *inside = self._hooks
        rest = Rest(self._task, inside, self._rank, side=side)
        rest._replaced = self._replaced
        found = hook.dense(self._task, rest, batch, embedded)
        if len(rest._calls) != 1:
            calls = f"calls its rest {len(rest._calls)} times"
            raise RuntimeError(f"{type(hook).__name__}.dense {calls}: must once; `rest.aside` makes further passes")
        return found


class Hook(nn.Module):
    """Takes part in nothing: a hook overrides what it needs.

    slices: whether the dense part may take a batch in slices (`train.accumulate`), without its `sparse` part; False for a hook
    whose `dense` compares rows, reads `batch.sparse`, adds up over ranks or goes on with what `embed` has found.
    """

    slices: ClassVar[bool] = True

    def embed(self, task: Task, batch: Batch, embedded: Embedded) -> Embedded:
        """What the next hook and the model see in the place of the embeddings; in the graph, in training and evaluation. Called
        once for a batch; side passes begin after it."""
        return embedded

    def dense(self, task: Task, rest: Rest, batch: Batch, embedded: Embedded) -> Outputs:
        """Logits and loss; in the graph, in training and evaluation, in the batch's own pass and in side passes (`rest.side`).
        Calls `rest`, or a `rest.around(...)`, once; else the hooks inside would be off (RuntimeError)."""
        return rest(batch, embedded)

    def before_step(self, run: Run, taken: Taken) -> None:
        """Before a batch is looked up."""

    def after_step(self, run: Run) -> None:
        """After all weights are updated, before a checkpoint can be written."""

    def begins(self, run: Run, stage: Stage, progress: Progress) -> None:
        """Once a period is scored, before its first step. Passes over the data are one period, which is not scored; a run that
        resumes inside of a period is not told again."""

    def ends(self, run: Run, stage: Stage, progress: Progress) -> None:
        """After a period's last step (of passes: the last of all); again when a run resumes there."""
