"""Tables that are read un-pooled: of each, the rows that a batch holds are looked up once, and bags are made of them
afterwards. Where tables are sharded, a row then travels once for a batch, however many candidates and histories hold
it.

K keys, B samples, N values of a table in a batch, U rows that are looked up.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

from coldrank.models.features import FeatureSet

# The rows of a table are looked up as those of so many samples: as many on every rank, as TorchRec wants them, though
# batches differ; and more than one, as FBGEMM's kernels go through the ids of a sample one by one, and through samples
# side by side.
_PIECES = 256


class RowLookup(NamedTuple):
    """What is looked up of un-pooled tables for a batch.

    rows: collection -> its tables as keys, the rows of each shared out over pieces of equal size. bags: table -> for
    each of its values in the batch the place of its row, int64 [N], where its bags begin, key by key, int64 [K * B],
    and weights, float32 [N], where the batch has them.
    """

    rows: dict[str, KeyedJaggedTensor]
    bags: dict[str, tuple[Tensor, ...]]

    def record_stream(self, stream: torch.Stream) -> None:
        """Keeps the memory until the stream has used it."""
        for rows in self.rows.values():
            rows.record_stream(stream)
        for bags in self.bags.values():
            for part in bags:
                part.record_stream(stream)


@dataclass(frozen=True, slots=True)
class Unpooled:
    """The tables that are read un-pooled, by their keys' numbers in a batch's `sparse`.

    pooled: keys of the other tables. collections: collection, one for each width of a table -> table -> its keys.
    distinct: whether a row is looked up once; else once for each value.
    """

    pooled: tuple[int, ...]
    collections: dict[str, dict[str, tuple[int, ...]]]
    distinct: bool = True

    @classmethod
    def of(cls, features: FeatureSet, tables: Collection[str], *, distinct: bool = True) -> "Unpooled":
        """tables: their names, in any order."""
        of_key = [f.table_name for f in features.sparse for _ in f.keys]
        keys_of = lambda table: tuple(i for i, name in enumerate(of_key) if name == table)
        collections: dict[str, dict[str, tuple[int, ...]]] = {}
        for t in features.tables:
            if t.name in tables:
                collections.setdefault(str(t.dim), {})[t.name] = keys_of(t.name)
        return cls(tuple(i for i, name in enumerate(of_key) if name not in tables), collections, distinct)

    def lookup(self, sparse: KeyedJaggedTensor) -> RowLookup:
        """What is looked up for a batch."""
        rows: dict[str, KeyedJaggedTensor] = {}
        bags: dict[str, tuple[Tensor, ...]] = {}
        for collection, tables in self.collections.items():
            found = []
            for table, keys in tables.items():
                values, lengths, *weights = selected(sparse, keys)
                if self.distinct:
                    values, places = values.unique(return_inverse=True)
                else:
                    places = torch.arange(len(values), device=values.device)
                bags[table] = places, lengths.cumsum(0) - lengths, *weights
                found.append(values)
            pieces = torch.cat([_pieces(values) for values in found])
            rows[collection] = KeyedJaggedTensor(keys=list(tables), values=torch.cat(found), lengths=pieces)
        return RowLookup(rows, bags)

    def pooled_part(self, sparse: KeyedJaggedTensor) -> KeyedJaggedTensor:
        """The keys of the other tables."""
        values, lengths, *weights = selected(sparse, self.pooled)
        keys = [sparse.keys()[i] for i in self.pooled]
        return KeyedJaggedTensor(keys=keys, values=values, lengths=lengths, weights=next(iter(weights), None))


def selected(sparse: KeyedJaggedTensor, keys: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Values [N] and lengths [K * B] of some keys, ascending; and their weights [N], where there are any."""
    ends, size, of_values = sparse.offset_per_key(), sparse.stride(), sparse.weights_or_none()
    values, lengths = [sparse.values()[:0]], [sparse.lengths()[:0]]
    weights = [] if of_values is None else [of_values[:0]]
    for _, run in groupby(enumerate(keys), lambda pair: pair[1] - pair[0]):
        side_by_side = [key for _, key in run]
        first, last = side_by_side[0], side_by_side[-1] + 1
        values.append(sparse.values()[ends[first] : ends[last]])
        lengths.append(sparse.lengths()[first * size : last * size])
        if of_values is not None:
            weights.append(of_values[ends[first] : ends[last]])
    return torch.cat(values), torch.cat(lengths), *([torch.cat(weights)] if weights else [])


def _pieces(values: Tensor) -> Tensor:
    """Lengths of pieces of equal size, to one: int32 [_PIECES]."""
    share, rest = divmod(len(values), _PIECES)
    return share + (torch.arange(_PIECES, device=values.device) < rest).to(torch.int32)
