"""A batch as the model takes it."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from coldrank.models.unpooled import RowLookup, Unpooled


class SampleView(Protocol):
    """What models and hooks read of B samples beside their embeddings, in training and in the served model."""

    dense: Tensor
    """float32 [B, F], in the order of `FeatureSet.numbers`."""
    sequence_lengths: Tensor
    """int64 [S, B], in the order of `FeatureSet.sequences`."""
    keys: dict[str, Tensor]
    """int64 [B] each: `user_views`, `item_views`, and what else `Hook.reads` names."""

    def rows(self, feature: str) -> Tensor:
        """Rows of an id feature with one id per sample, in its table: int64 [B]."""

    def positions(self, feature: str) -> Tensor:
        """What a feature of a sequence has at its positions, rows or joint states of signals: int64 [B, L], -1 for
        none."""


class Unknown(NamedTuple):
    """Ids of a table in a batch, int64 each. places: [U], in the values of `Batch.sparse`. which: [U], the number among
    `ids` of the id there. ids: [N], distinct, ascending. counts: [N], how many of the places each has; events: [N], of
    these, those outside sequences, of each raw column once."""

    places: Tensor
    which: Tensor
    ids: Tensor
    counts: Tensor
    events: Tensor


@dataclass(slots=True)
class Batch(Pipelineable):
    """B samples.

    sparse: rows of tables, keys as `FeatureEncoder.keys`. dense: float32 [B, F]. sequence_lengths: int64 [S, B].
    labels: float32 [B, T], NaN where unknown. keys: what identifies a sample and places it in a cohort, int64 [B] each
    (`user_id`, `item_id`, `time`, `user_views`, `item_views`), and float32 `true_<task>` where the data has them.
    sizes: B of every rank's batch in this step; empty where there is this one alone. unknown: table with dynamic
    ids -> those that are left to training, until they have their rows (`FeatureEncoder.unknown`). weights: of each
    sample in the loss, float32 [B]; None: 1 each, or a batch for evaluation. unpooled: the tables that are read so, if
    any is. floats: what is read of no table, float32 [B, W], as `FeatureEncoder.floats`; None where nothing is.
    """

    sparse: KeyedJaggedTensor
    dense: Tensor
    sequence_lengths: Tensor
    labels: Tensor
    keys: dict[str, Tensor]
    unknown: dict[str, Unknown] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()
    weights: Tensor | None = None
    unpooled: Unpooled | None = None
    floats: Tensor | None = None
    _unpooled_lookup: RowLookup | None = field(default=None, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return self.labels.shape[0]

    @property
    def mean_size(self) -> float:
        """Rows of a rank, on average: what a sum over rows is divided by to be, averaged over the ranks, the mean over
        the rows of all. Not 0, so that the loss of no rows is 0."""
        return sum(self.sizes) / len(self.sizes) if self.sizes else float(max(1, len(self)))

    @property
    def lookup(self) -> KeyedJaggedTensor:
        """`sparse`, of tables that are pooled, with empty bags after its rows up to as many as the rank with the most
        has: a row-wise table's backward pass takes equally many of every rank. An empty bag reads no row and changes
        none."""
        sparse = self.unpooled.pooled_part(self.sparse) if self.unpooled else self.sparse
        missing = max(self.sizes, default=0) - len(self)
        if missing <= 0:
            return sparse
        lengths = sparse.lengths().view(len(sparse.keys()), len(self))
        padded = torch.cat([lengths, lengths.new_zeros(len(lengths), missing)], 1).flatten()
        weights = sparse.weights_or_none()
        return KeyedJaggedTensor(keys=sparse.keys(), values=sparse.values(), weights=weights, lengths=padded)

    @property
    def unpooled_lookup(self) -> RowLookup:
        """What is looked up of un-pooled tables; found once, when every id has its row."""
        if self._unpooled_lookup is None:
            self._unpooled_lookup = self.unpooled.lookup(self.sparse) if self.unpooled else RowLookup({}, {})
        return self._unpooled_lookup

    def rows(self, feature: str) -> Tensor:
        """Rows of an id feature with one id per sample, in its table: int64 [B]."""
        size = len(self)
        first = self.sparse.keys().index(feature) * size
        return self.sparse.values()[self.sparse.offsets()[first : first + size]].to(torch.int64)

    def positions(self, feature: str) -> Tensor:
        """What a feature of a sequence has at its positions, rows or joint states of signals: int64 [B, L], -1 for
        none."""
        keys, size = self.sparse.keys(), len(self)
        length = sum(key.partition(".")[0] == feature for key in keys)
        first = keys.index(f"{feature}.0")
        offsets = self.sparse.offsets()[first * size : (first + length) * size + 1]
        values = torch.cat([self.sparse.values(), offsets.new_zeros(1)])  # so that an empty batch can be read
        return torch.where(offsets[1:] > offsets[:-1], values[offsets[:-1]], -1).view(length, size).T

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The batch on a device; keys and unknown ids stay where they are."""
        return self._mapped(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from which a GPU copies while it computes; keys and unknown ids stay where
        they are."""
        return self._mapped(lambda part: part.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        """Keeps the memory until the stream has used it."""
        for part in self._for_device().values():
            part.record_stream(stream)
        if self._unpooled_lookup is not None:
            self._unpooled_lookup.record_stream(stream)

    def _mapped(self, change: Callable[[Any], Any]) -> "Batch":
        return replace(self, **{name: change(part) for name, part in self._for_device().items()})

    def _for_device(self) -> dict[str, Any]:
        """What a device computes with: every tensor, so that none can be forgotten."""
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return {name: part for name, part in parts.items() if isinstance(part, Tensor | KeyedJaggedTensor)}
