"""What a training method is: a config, and the module that it builds, which takes part in the step's graph, in what
comes before and after a step, and in the periods of a stream. docs/extending.md shows one of a user's own.

The module is one of the task's, `task.hooks[name]`. Its parameters are trained with the dense part and averaged over
the ranks, its buffers are in every checkpoint. All that is called here is called on every rank. `RunConfig.hooks` holds
the hooks that are on, in order: the embeddings pass through them from the first to the last, and the first one is the
outermost around the dense part.

A batch has one pass of its own. A hook may make others beside it, *side passes*, from which nothing is kept: their rows
and embeddings may be others than the batch's (MWUF's second pass, with warm embeddings). Their loss has gradients like
any other.

Where state may lie: what outlives a step, in buffers, written outside the graph (`before_step`, `after_step`, `begins`,
`ends`). What `embed` or `dense` finds for `after_step`, in a plain attribute, written in the batch's own pass while it
is trained on (`self.training and torch.is_grad_enabled()`, and in `dense` not `rest.side`), and taken away by
`after_step`.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel

from coldrank.data.batches import DataFolder
from coldrank.models.batch import Batch
from coldrank.models.component import Component
from coldrank.models.embeddings import Embedded
from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.models.heads.head import Head
from coldrank.models.heads.heads import Heads
from coldrank.models.model import Model, ModelModule, Outputs
from coldrank.train.distributed.ranks import Ranks
from coldrank.train.optim.optimizers import Optimizers
from coldrank.train.progress import Progress, Stage
from coldrank.train.sections import DataConfig, OptimConfig, TrainConfig
from coldrank.train.stepping import Taken

# Logits and loss; the last argument says whether they are of a side pass.
Rank = Callable[[Batch, Embedded, bool], Outputs]


class Settings(Protocol):
    """What hooks read of the run's config; RunConfig says what each field is."""

    name: str
    tasks: dict[str, Head]
    cold_weight: float
    hooks: tuple["Hook", ...]
    features: tuple[Feature, ...]
    tables: tuple[Table, ...]
    model: Model
    data: DataConfig
    optim: OptimConfig
    train: TrainConfig


class RunView(Protocol):
    """What hooks see of the run that they are in."""

    data: DataFolder
    ranks: Ranks
    encoder: FeatureEncoder
    model: DistributedModelParallel
    optimizers: Optimizers

    @property
    def config(self) -> Settings:
        """Its config."""


class Rest:
    """What is inside a hook's `dense`: the hooks after it, and innermost `rank`, the model and its loss.

    model: the model. heads: of its tasks. side: whether the pass that the hook is in is a side pass; all that is called
    inside of one is.
    """

    def __init__(
        self,
        model: ModelModule,
        heads: Heads,
        hooks: Sequence["HookModule"],
        rank: Rank,
        *,
        by_rows: bool,
        side: bool = False,
    ) -> None:
        """by_rows: whether `rank` treats a row without regard to the others of the batch."""
        self.model, self.heads, self.side = model, heads, side
        self._hooks, self._rank, self._rank_by_rows = tuple(hooks), rank, by_rows
        self._calls: list[None] = []  # of the batch's own pass, shared with what is `around` another function

    def __call__(self, batch: Batch, embedded: Embedded) -> Outputs:
        """Goes on with the pass that the hook is in: once, with the rows that the hook was given."""
        self._calls.append(None)
        return self._go(batch, embedded, side=self.side)

    def aside(self, batch: Batch, embedded: Embedded) -> Outputs:
        """A side pass, after the own one, of the whole batch or, where `by_rows`, of some of its rows
        (`train.optim.micro_batches.rows_of`). Every rank makes it or none, unless `by_rows`: what is inside may add up
        over the ranks."""
        return self._go(batch, embedded, side=True)

    def around(self, rank: Rank) -> "Rest":
        """The same hooks around another model and loss: what trains or scores in its own way has the hooks inside it do
        what they do to that. `rank` is called once in the batch's own pass, before any side pass."""
        other = Rest(self.model, self.heads, self._hooks, rank, by_rows=False, side=self.side)
        other._calls = self._calls
        return other

    @property
    def by_rows(self) -> bool:
        """Whether all inside treats a row without regard to the others of the batch, and needs no `sparse` part."""
        return self._rank_by_rows and all(hook.micro_batches for hook in self._hooks)

    def _go(self, batch: Batch, embedded: Embedded, *, side: bool) -> Outputs:
        if not self._hooks:
            return self._rank(batch, embedded, side)
        hook, *inside = self._hooks
        rest = Rest(self.model, self.heads, inside, self._rank, by_rows=self._rank_by_rows, side=side)
        outputs = hook.dense(rest, batch, embedded)
        if len(rest._calls) != 1:
            calls = f"calls its rest {len(rest._calls)} times"
            raise RuntimeError(f"{type(hook).__name__}.dense {calls}: must once; `rest.aside` makes further passes")
        return outputs


class HookModule(nn.Module):
    """Takes part in nothing: a hook overrides what it needs."""

    micro_batches: ClassVar[bool] = True
    """Whether the dense part may take a batch in micro-batches (`train.accumulate`), without their `sparse` part; False
    for a hook whose `dense` compares rows, reads `batch.sparse`, adds up over ranks or goes on with what `embed`
    has kept."""

    def embed(self, batch: Batch, embedded: Embedded) -> Embedded:
        """What the next hook and the model see in the place of the embeddings; in the graph, in training and
        evaluation. Called once for a batch; side passes begin after it. In the served model, which is traced, the batch
        has what `models.batch.Samples` says."""
        return embedded

    def dense(self, rest: Rest, batch: Batch, embedded: Embedded) -> Outputs:
        """Logits and loss; in the graph, in training and evaluation, in the batch's own pass and in side passes
        (`rest.side`). Calls `rest`, or a `rest.around(...)`, once; else the hooks inside would be off
        (RuntimeError)."""
        return rest(batch, embedded)

    def placed(self, run: RunView) -> None:
        """Once the tables lie on their ranks, before any checkpoint is read: for state that is to lie as they do
        (`rows.RowsBeside`)."""

    def before_step(self, run: RunView, taken: Taken) -> None:
        """Before a batch is looked up."""

    def after_step(self, run: RunView) -> None:
        """After all weights are updated, before a checkpoint can be written."""

    def begins(self, run: RunView, stage: Stage, progress: Progress) -> None:
        """Once a period is scored, before its first step. Passes over the data are one period, which is not scored; a
        run that resumes inside of a period is not told again."""

    def ends(self, run: RunView, stage: Stage, progress: Progress) -> None:
        """After a period's last step (of passes: the last of all); again when a run resumes there."""


class Hook(Component):
    """A training method's settings, from which it is built. As `--set` and config.json name it: `short_name()`."""

    what = "hook"
    package = "coldrank.train.hooks"
    reads_sequences: ClassVar[bool] = False
    """Whether it reads sequences, which a model may then leave to it."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Counts of a sample, of `Batch.keys`, that it reads in evaluation and hence in serving; of a class whose
        settings do not change them, a ClassVar."""
        return ()

    @property
    def own_lr_scale(self) -> float | None:
        """Learning rate of its parameters over `optim.dense.lr`, in an optimizer of their own; None: they are dense
        parameters like any other."""
        return None

    def build(self, config: Settings, features: FeatureSet) -> HookModule:
        """The module. features: what the model reads. Raises UserError, or ValueError that names the field, for
        settings that cannot work."""
        raise NotImplementedError

    def problem(self, config: Settings) -> str:
        """What it leaves no room for in the rest of a config, in words; '' if nothing."""
        return ""

    def written(self, config: Settings) -> frozenset[str]:
        """Tables whose rows it reads or writes beside the lookup (`TableRows`): these lie once, and in no cache."""
        return frozenset()

    def idle(self, config: Settings) -> list[tuple[bool, tuple[str, ...], str]]:
        """Settings without an effect beside others: whether it is so, which fields, and beside what ("has no effect
        ...")."""
        return []
