"""SML (Zhang et al., SIGIR 2020): a transfer network makes the weights that serve, W_t, of those that served before and
of those trained on the period's data, W^_t. It learns from the data of the next period.

    W^_t  : trained on the data D_t of period t, from W_(t-1) on                       step 1
    W_t   = f_Theta(W_(t-1), W^_t)                                                     what serves in t + 1
    Theta : descends L(f_Theta(W_(t-1), W^_t); D_(t+1)), W_(t-1) and W^_t held still   step 2

f is `coldrank.modules.sml.Transfer`, one for each table, as the authors' released code has it (its equations' numbers
were not looked up). In a stream both steps go along with each batch of D_t: W^_t learns from it as it would without the
hook, and Theta by what f makes of the period before, f(W_(t-2), W^_(t-1)), on the same rows. Then f makes W_t.

Deviations. The paper's model is a matrix factorisation, whose weights are the tables: f makes rows of tables, and the
dense weights, which it does not have, go on from period to period as they are trained. W^_t is trained by its own loss,
not through f: the tables' lookup hands gradients to bags, of which f is no function. (The released code has both ways.)
One pass over each period, where the paper takes turns. Rows without an id are left alone. The network is trained over
the first `after` periods before it makes anything; the paper has a training phase of its own.

B batch, D width, N rows, U rows of a table that a batch reads.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded
from coldrank.models.features import FeatureSet
from coldrank.models.model import Outputs
from coldrank.modules.gate import separate_draws
from coldrank.modules.sml import Transfer
from coldrank.train.hooks.hook import Hook, HookModule, Rest, RunView, Settings
from coldrank.train.hooks.past import (
    BatchRows,
    PastTables,
    all_tables,
    by_gradient,
    dense_of,
    dense_shapes,
    held_rows,
    loss_of,
    nothing,
    stream_problem,
    tables_of,
    task_of,
)
from coldrank.train.hooks.rows import TableRows
from coldrank.train.progress import Progress, Stage
from coldrank.train.stepping import Taken
from coldrank.train.task import RankingTask

_CHUNK = 1 << 16


@dataclass(kw_only=True, slots=True)
class SML(Hook):
    """A transfer network makes the tables that serve (docs/streams.md)."""

    channels: tuple[PositiveInt, PositiveInt] = (10, 5)
    """Of the network's two layers of convolutions."""
    hidden: PositiveInt = 20
    """Width of its hidden layer."""
    added: bool = False
    """Its result is added to the trained weights, with which it begins, in the place of the weights themselves."""
    after: NonNegativeInt = 10
    """Periods, the warm part's among them, in which the network is trained alone and makes nothing."""
    lr_scale: PositiveFloat = 1.0
    """Its learning rate over that of the dense weights."""

    @property
    def own_lr_scale(self) -> float | None:
        return self.lr_scale

    def build(self, config: Settings, features: FeatureSet) -> "SMLModule":
        return SMLModule(self, config, features)

    def problem(self, config: Settings) -> str:
        return stream_problem("sml", config)

    def written(self, config: Settings) -> frozenset[str]:
        return all_tables(config)


class SMLModule(HookModule):
    """before, trained: W_(t-2) and W^_(t-1), from the end of the second period on. served: W_(t-1). periods: that have
    ended, int64 [1]."""

    micro_batches: ClassVar[bool] = False  # what `before_step` has kept waits for `dense`, whole
    periods: Tensor

    def __init__(self, c: SML, config: Settings, features: FeatureSet) -> None:
        super().__init__()
        self.config = c
        with separate_draws():  # so that the model begins as it does without the hook
            self.nets = nn.ModuleDict(
                {t.name: Transfer(t.dim, c.channels, c.hidden, added=c.added) for t in features.tables}
            )
        self.before, self.trained, self.served = (PastTables(features) for _ in range(3))
        self.register_buffer("periods", torch.zeros(1, dtype=torch.int64))
        self._rows, self._of = BatchRows(features), {t.name: t for t in features.tables}
        self._dense = tuple(dense_shapes(config, features))
        self._task: tuple[RankingTask, ...] = ()  # of which the hook is a part itself
        self._tables: dict[str, TableRows] = {}
        self._read: tuple[Batch, dict[str, Tensor], dict[str, Tensor]] | None = None

    def placed(self, run: RunView) -> None:
        for past in (self.before, self.trained, self.served):
            past.placed(run)
        self._tables, self._task = tables_of(run, run.encoder.features), (task_of(run),)

    def begins(self, run: RunView, stage: Stage, progress: Progress) -> None:
        """The first period's begin: nothing has served yet, whatever a warm start has brought."""
        if not progress.step:
            self.periods.zero_()

    @torch.no_grad()
    def before_step(self, run: RunView, taken: Taken) -> None:
        """Reads what the network is to learn from."""
        for past in (self.before, self.trained, self.served):
            past.renew(taken.new_rows, self._tables)
        self._read = None
        if self.periods > 1:
            batch = self._rows.of(taken.batch.to(run.ranks.device))
            before, trained = (self._rows.read(batch, past.tables) for past in (self.before, self.trained))
            self._read = batch, before, trained

    def dense(self, rest: Rest, batch: Batch, embedded: Embedded) -> Outputs:
        """The loss of what f makes is added by its gradient alone, which reaches Theta and nothing else."""
        out = rest(batch, embedded)
        if rest.side or not (self.training and torch.is_grad_enabled()):
            return out
        if self._read is None:
            return by_gradient(out, nothing(self.nets.parameters()))
        (rows, before, trained), self._read = self._read, None
        made = self._rows.embed(rows, {t: self.nets[t](before[t], trained[t]) for t in before})
        (task,) = self._task
        dense = {name: weight.detach() for name, weight in dense_of(task, self._dense).items()}
        return by_gradient(out, loss_of(task, batch, made, dense))

    @torch.no_grad()
    def ends(self, run: RunView, stage: Stage, progress: Progress) -> None:
        """Makes W_t, and keeps what it was made of for the network to learn from in the next period."""
        self.periods += 1
        if self.periods > 1:
            self.before.take_tables(self.served.tables)
            self.trained.take_tables(self._tables)
        if self.periods > max(1, self.config.after):
            for name, table in self._tables.items():
                for rows in held_rows(run, self._of[name]).split(_CHUNK):
                    old, new = self.before.tables[name].read(rows), self.trained.tables[name].read(rows)
                    table.write(rows, self.nets[name](old, new))
        self.served.take_tables(self._tables)
