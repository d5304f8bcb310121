"""How any model and any hooks are served: their own code for evaluation, traced over inputs as training has them, for
every candidate.

Q requests, C candidates, S sequences, L sequence length, D width, T tasks. The ranker, the two-tower model and our
hooks have parts of their own in its place (`serving/parts.py`), which compute what rests on the request alone once.
"""

import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded, Inputs, places
from coldrank.models.features import FeatureSet
from coldrank.models.heads.heads import Heads
from coldrank.models.model import ModelModule, Outputs
from coldrank.serving.hooked import Layout
from coldrank.serving.order import Columns, code_places
from coldrank.serving.order import places as places_of_side
from coldrank.serving.pack import spread
from coldrank.serving.stage import Asked, Looked
from coldrank.train.hooks.hook import HookModule, Rest

_EXAMPLE_ROWS = 3


@dataclass(slots=True)
class ServedSamples:
    """`models.batch.Samples` of a served model. of_rows, of_positions: what `rows` and `positions` give, by feature."""

    dense: Tensor
    sequence_lengths: Tensor
    keys: dict[str, Tensor]
    of_rows: dict[str, Tensor]
    of_positions: dict[str, Tensor]

    def __len__(self) -> int:
        return self.dense.shape[0]

    def rows(self, feature: str) -> Tensor:
        """int64 [C]."""
        return self.of_rows[feature]

    def positions(self, feature: str) -> Tensor:
        """int64 [C, L]."""
        return self.of_positions[feature]


class Traced(nn.Module):
    """A model inside its hooks. Scriptable."""

    columns: dict[str, tuple[int, int]]
    codes: dict[str, tuple[int, int]]
    of_sequences: dict[str, tuple[str, int, int]]
    sequences: list[str]

    def __init__(
        self, model: ModelModule, heads: Heads, hooks: Sequence[HookModule], asked: Asked, layout: Layout
    ) -> None:
        super().__init__()
        features, order = layout.features, layout.order
        inputs = Inputs(features)
        inner = [places_of_side(features, o) for o in order]
        self.inputs = Columns(inner, list(range(inputs.static_dim)))
        self.columns = {name: (span.start, span.stop) for name, span in places(features).items()}
        self.numbers = inputs.static_dim - inputs.numbers
        self.code_order = torch.tensor(code_places(features, order), dtype=torch.int64).argsort()
        self.codes, self.of_sequences = {}, {}
        self._lay(features, inputs)
        self.sequences = list(inputs.sequences)
        task = _Evaluated(deepcopy(model).eval(), deepcopy(heads), [deepcopy(hook).eval() for hook in hooks])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of checks of widths, which hold for any number of rows
            example = _example(features, inputs, asked)
            self.task = torch.jit.trace(task, example, strict=False, check_trace=False)
        self.answers = int(self.task(*example).shape[1])

    def _lay(self, features: FeatureSet, inputs: Inputs) -> None:
        widths = {f.name: features.dim(f) for f in features.embedded}
        first = 0
        for name in inputs.codes:
            self.codes[name] = (first, first + widths[name])
            first += widths[name]
        for sequence, names in inputs.sequences.items():
            first = 0
            for name in names:
                self.of_sequences[name] = (sequence, first, first + widths[name])
                first += widths[name]

    def forward(self, looked: Looked) -> Tensor:
        """Logits [C, T]; of a retrieval model, inner products over its temperature."""
        a, b = looked.request, looked.candidate
        candidate = torch.cat([b.static, b.dense], 1)
        rows = candidate.shape[0]
        if rows == 0:  # which a trace may divide by
            return torch.zeros(0, self.answers)
        x = spread(self.inputs(torch.cat([a.static, a.dense], 1), candidate), rows).expand(rows, -1)
        pc = torch.cat([spread(a.pc, rows).expand(rows, -1), b.pc], 1)[:, self.code_order]
        embedded: dict[str, Tensor] = {}
        for name, span in self.columns.items():
            embedded[name] = x[:, span[0] : span[1]]
        for name, span in self.codes.items():
            embedded[name] = pc[:, span[0] : span[1]]
        for name, where in self.of_sequences.items():
            read = looked.sequences[where[0]][:, :, where[1] : where[2]]
            embedded[name] = spread(read, rows).expand(rows, -1, -1)
        lengths = torch.zeros(0, rows, dtype=torch.int64)
        if len(self.sequences) > 0:
            lengths = torch.stack(
                [spread(looked.lengths[n].unsqueeze(1), rows).expand(rows, 1) for n in self.sequences]
            )
            lengths = lengths.squeeze(2)
        beside = {"lengths": lengths}  # a trace takes no dictionary without entries
        for name, count in looked.counts.items():
            beside["keys." + name] = spread(count.unsqueeze(1), rows).expand(rows, 1).squeeze(1)
        for name, rows_of_ids in looked.rows.items():
            beside["rows." + name] = spread(rows_of_ids.unsqueeze(1), rows).expand(rows, 1).squeeze(1)
        for name, code in looked.codes.items():
            beside["positions." + name] = spread(code, rows).expand(rows, -1)
        logits: Tensor = self.task(embedded, x[:, self.numbers :], beside)
        return logits


class _Evaluated(nn.Module):
    """Hooks and model as evaluation calls them, with tensors alone as arguments."""

    def __init__(self, model: ModelModule, heads: Heads, hooks: Sequence[HookModule]) -> None:
        super().__init__()
        self.model, self.heads, self.hooks = model, heads, nn.ModuleList(hooks)

    def forward(self, embedded: Embedded, dense: Tensor, beside: dict[str, Tensor]) -> Tensor:
        of = lambda kind: {n.removeprefix(kind): x for n, x in beside.items() if n.startswith(kind)}
        batch = ServedSamples(dense, beside["lengths"], of("keys."), of("rows."), of("positions."))
        return _scored(self.model, self.heads, list(self.hooks), batch, embedded)  # type: ignore[arg-type]


def _scored(
    model: ModelModule, heads: Heads, hooks: Sequence[HookModule], batch: ServedSamples, embedded: Embedded
) -> Tensor:
    embedded = dict(embedded)
    for hook in hooks:
        embedded = hook.embed(cast(Batch, batch), embedded)
    none = torch.zeros(())
    # The loss of nothing: there are no labels.
    rank = lambda batch, embedded, side: Outputs(none, model(embedded, batch), (none, none))
    return Rest(model, heads, hooks, rank, by_rows=True)(cast(Batch, batch), embedded).logits


def asked_by(
    model: ModelModule, heads: Heads, hooks: Sequence[HookModule], features: FeatureSet, counts: Sequence[str]
) -> Asked:
    """What a model and its hooks read beside embeddings, found out by calling them. counts: the raw counts that hooks
    name."""
    lengths = {f.name: f.length for f in features.sparse if f.role == "sequence"}
    empty = Asked(counts=tuple(counts))
    embedded, dense, beside = _example(features, Inputs(features), empty)
    keys = {name.removeprefix("keys."): x for name, x in beside.items()}
    batch = _Noting(dense, beside["lengths"], keys, {}, {}, lengths)
    with torch.no_grad():
        _scored(deepcopy(model).eval(), heads, [deepcopy(hook).eval() for hook in hooks], batch, embedded)
    return Asked(rows=tuple(batch.of_rows), codes=tuple(batch.of_positions), counts=tuple(counts))


@dataclass(slots=True)
class _Noting(ServedSamples):
    lengths: dict[str, int]

    def rows(self, feature: str) -> Tensor:
        return self.of_rows.setdefault(feature, torch.zeros(len(self), dtype=torch.int64))

    def positions(self, feature: str) -> Tensor:
        return self.of_positions.setdefault(feature, torch.full((len(self), self.lengths[feature]), -1))


def _example(features: FeatureSet, inputs: Inputs, asked: Asked) -> tuple[Embedded, Tensor, dict[str, Tensor]]:
    rows = _EXAMPLE_ROWS
    lengths = {f.name: f.length for f in features.sparse if f.role == "sequence"}
    embedded = {}
    for f in features.embedded:
        size = (rows, f.length, features.dim(f)) if f.role == "sequence" else (rows, features.dim(f))
        embedded[f.name] = torch.rand(size)
    of_sequences = torch.tensor([[n] * rows for n in inputs.sequence_lengths.values()], dtype=torch.int64)
    beside = {"lengths": of_sequences.view(-1, rows)}
    beside |= {f"keys.{name}": torch.arange(rows) for name in asked.counts}
    beside |= {f"rows.{name}": torch.zeros(rows, dtype=torch.int64) for name in asked.rows}
    beside |= {f"positions.{name}": torch.full((rows, lengths[name]), -1) for name in asked.codes}
    return embedded, torch.rand(rows, inputs.numbers), beside
