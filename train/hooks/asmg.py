"""ASMG (Peng et al., RecSys 2021): a generator, gated recurrent units over the last models of a stream, makes the model
that serves. The stream itself goes on by fine-tuning, as if there were no generator.

    omega_t = G_phi(theta_(t-L+1), ..., theta_t; h)      theta_t: fine-tuned up to period t; omega_t serves in t + 1
    phi     : descends L(omega_t; D_(t+1)), the models held still

G is `coldrank.modules.asmg.Generator`, a unit for each column of a table and for each dense weight, as the authors'
released code has it (its equations' numbers were not looked up). h is the hidden state before the first model of the
sequence: zeros at first, and with each period that goes by, the state after the model that leaves the sequence
("continued hidden states"). While D_t is trained on, phi learns from the same batches, by the models up to t - 1.

Deviations. The loss is that of the last model of the sequence on its next period (the authors' variant "single"): their
sum over the sequence's models, each on the data of its own next period, reads earlier periods again, which a stream
does not. Rows without an id stay as they are. The generator is trained over the first `after` periods before it makes
anything.

D width, H of the hidden state, L models, N rows, P dense weights, U rows of a table that a batch reads.
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
from coldrank.modules.asmg import Generator
from coldrank.modules.gate import separate_draws
from coldrank.train.hooks.hook import Hook, HookModule, Rest, RunView, Settings
from coldrank.train.hooks.past import (
    BatchRows,
    Dense,
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

_CHUNK = 1 << 14


@dataclass(kw_only=True, slots=True)
class ASMG(Hook):
    """A generator makes the model that serves of the last ones (docs/streams.md)."""

    length: PositiveInt = 3
    """L, the models that it reads."""
    hidden: PositiveInt = 4
    """Width of the hidden state of each weight."""
    after: NonNegativeInt = 10
    """Periods, the warm part's among them, in which the generator is trained alone and makes nothing."""
    lr_scale: PositiveFloat = 1.0
    """Its learning rate over that of the dense weights."""

    @property
    def own_lr_scale(self) -> float | None:
        return self.lr_scale

    def build(self, config: Settings, features: FeatureSet) -> "ASMGModule":
        return ASMGModule(self, config, features)

    def problem(self, config: Settings) -> str:
        return stream_problem("asmg", config)

    def idle(self, config: Settings) -> list[tuple[bool, tuple[str, ...], str]]:
        early = self.after <= self.length  # a generator that has learnt nothing makes nothing
        return [(early, ("after",), f"up to asmg.length={self.length}, the first period that can teach")]

    def written(self, config: Settings) -> frozenset[str]:
        return all_tables(config)


class ASMGModule(HookModule):
    """models: L of the tables, that of period n (0-based) in place n mod L; dense: likewise, [L, P]. states: H parts of
    the tables' hidden states; dense_state: [1, P, H]. periods: that have ended, int64 [1]. serves: whether the weights
    are those that were made, bool [1]."""

    micro_batches: ClassVar[bool] = False  # what `before_step` has kept waits for `dense`, whole
    dense_models: Tensor
    dense_state: Tensor
    periods: Tensor
    serves: Tensor

    def __init__(self, c: ASMG, config: Settings, features: FeatureSet) -> None:
        super().__init__()
        self.config = c
        self._shapes = dense_shapes(config, features)
        size = sum(shape.numel() for shape in self._shapes.values())
        with separate_draws():  # so that the model begins as it does without the hook
            self.nets = nn.ModuleDict({t.name: Generator(t.dim, c.hidden) for t in features.tables})
            self.of_dense = Generator(size, c.hidden)
        self.models = nn.ModuleList(PastTables(features) for _ in range(c.length))
        self.states = nn.ModuleList(PastTables(features) for _ in range(c.hidden))
        self.register_buffer("dense_models", torch.zeros(c.length, size))
        self.register_buffer("dense_state", torch.zeros(1, size, c.hidden))
        self.register_buffer("periods", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("serves", torch.zeros(1, dtype=torch.bool))
        self._rows, self._of = BatchRows(features), {t.name: t for t in features.tables}
        self._tables: dict[str, TableRows] = {}
        self._task: tuple[RankingTask, ...] = ()  # of which the hook is a part itself
        self._read: tuple[Batch, dict[str, Tensor], dict[str, Tensor]] | None = None

    @property
    def in_order(self) -> list[int]:
        """Places of the models, the oldest first."""
        return [(int(self.periods) + n) % self.config.length for n in range(self.config.length)]

    def placed(self, run: RunView) -> None:
        for past in self._past(self.models) + self._past(self.states):
            past.placed(run)
        self._tables, self._task = tables_of(run, run.encoder.features), (task_of(run),)

    @staticmethod
    def _past(of: nn.ModuleList) -> list[PastTables]:
        return [past for past in of if isinstance(past, PastTables)]

    @torch.no_grad()
    def begins(self, run: RunView, stage: Stage, progress: Progress) -> None:
        """The fine-tuned model goes on where it was."""
        if not progress.step:  # whatever a warm start has brought
            self.periods.zero_()
            self.serves.fill_(False)
            self.dense_state.zero_()
        if self.serves:
            last = (int(self.periods) - 1) % self.config.length
            for name, rows in self._past(self.models)[last].tables.items():
                for (theirs, _), (mine, _) in zip(self._tables[name].parts, rows.parts, strict=True):
                    theirs.copy_(mine)
            self._put(self.dense_models[last])
            self.serves.fill_(False)

    @torch.no_grad()
    def before_step(self, run: RunView, taken: Taken) -> None:
        """Reads what the generator is to learn from."""
        for past in self._past(self.models):
            past.renew(taken.new_rows, self._tables)
        for past in self._past(self.states):
            past.clear(taken.new_rows)
        self._read = None
        if self.periods >= self.config.length:
            batch = self._rows.of(taken.batch.to(run.ranks.device))
            models = [self._rows.read(batch, self._past(self.models)[place].tables) for place in self.in_order]
            states = [self._rows.read(batch, past.tables) for past in self._past(self.states)]
            stacked = lambda parts, dim: {name: torch.stack([of[name] for of in parts], dim) for name in parts[0]}
            self._read = batch, stacked(models, 0), stacked(states, 2)

    def dense(self, rest: Rest, batch: Batch, embedded: Embedded) -> Outputs:
        """The loss of what is made is added by its gradient alone, which reaches phi and nothing else."""
        out = rest(batch, embedded)
        if rest.side or not (self.training and torch.is_grad_enabled()):
            return out
        if self._read is None:
            return by_gradient(out, nothing([*self.nets.parameters(), *self.of_dense.parameters()]))
        (rows, models, states), self._read = self._read, None
        made = self._rows.embed(rows, {t: self.nets[t](models[t], states[t]) for t in models})
        (task,) = self._task
        return by_gradient(out, loss_of(task, batch, made, self._named(self._made_dense())))

    @torch.no_grad()
    def ends(self, run: RunView, stage: Stage, progress: Progress) -> None:
        """Takes the model up into the sequence, and makes the one that serves."""
        place, full = int(self.periods) % self.config.length, bool(self.periods >= self.config.length)
        held = {name: held_rows(run, table) for name, table in self._of.items()}
        if full:
            self._go_on(place, held)
        self._past(self.models)[place].take_tables(self._tables)
        self.dense_models[place] = torch.cat([w.flatten() for w in self._weights().values()])
        self.periods += 1
        if full and self.periods > self.config.after:
            for name, of in held.items():
                for rows in of.split(_CHUNK):
                    models = torch.stack([self._past(self.models)[n].tables[name].read(rows) for n in self.in_order])
                    self._tables[name].write(rows, self.nets[name](models, self._state(name, rows)))
            self._put(self._made_dense()[0])
            self.serves.fill_(True)

    def _go_on(self, oldest: int, held: dict[str, Tensor]) -> None:
        """The hidden state after the model that leaves the sequence."""
        for name, of in held.items():
            net = self.nets[name]
            assert isinstance(net, Generator)
            for rows in of.split(_CHUNK):
                x = self._past(self.models)[oldest].tables[name].read(rows)
                after = net.step(x, self._state(name, rows))
                for part, values in zip(self._past(self.states), after.unbind(2), strict=True):
                    part.tables[name].write(rows, values)
        self.dense_state.copy_(self.of_dense.step(self.dense_models[oldest].unsqueeze(0), self.dense_state))

    def _state(self, table: str, rows: Tensor) -> Tensor:
        """Hidden states of rows, [N, D, H]."""
        return torch.stack([past.tables[table].read(rows) for past in self._past(self.states)], 2)

    def _made_dense(self) -> Tensor:
        """[1, P]."""
        made: Tensor = self.of_dense(self.dense_models[self.in_order].unsqueeze(1), self.dense_state)
        return made

    def _weights(self) -> Dense:
        (task,) = self._task
        return dense_of(task, tuple(self._shapes))

    def _named(self, flat: Tensor) -> Dense:
        """[1, P] -> the dense weights by their names in the task."""
        parts = flat[0].split([shape.numel() for shape in self._shapes.values()])
        return {name: part.view(shape) for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)}

    def _put(self, flat: Tensor) -> None:
        for weight, made in zip(self._weights().values(), self._named(flat.unsqueeze(0)).values(), strict=True):
            weight.copy_(made)
