"""Raw values -> rows of tables and dense slots: the one piece of code for this, in training and in serving.

B: batch size, L: sequence length, N: number of values in a list column.
Raw input: Dict[str, Tensor]; a list column `c` comes as `c` (values, [N]) and `c.lengths` ([B], int64).
"""

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from coldrank.models.batch import Unknown
from coldrank.models.features import Feature, FeatureSet, Table, Transform
from coldrank.models.ids.maps import map_of
from coldrank.models.ids.mixing import Share, mix64


class Bucketize(nn.Module):
    """number [B] -> bucket int64 [B]: 0 missing (NaN), else 1 + the number of edges <= the value."""

    edges: Tensor

    def __init__(self, edges: tuple[float, ...], buckets: int) -> None:
        super().__init__()
        inner = list(edges) if edges else [float("inf")] * (buckets - 1)
        self.register_buffer("edges", torch.tensor(inner, dtype=torch.float64))

    def forward(self, values: Tensor) -> Tensor:
        return bucket_of(values, self.edges)


class Standardize(nn.Module):
    """numbers [B, F] -> float32 [B, F]: (t(x) - mean) / std, clipped to +-8 standard deviations; missing (NaN) -> 0.

    transforms: t of each slot; slots of one transform lie together.
    """

    moments: Tensor

    def __init__(self, transforms: list[Transform]) -> None:
        super().__init__()
        logs, logits = transforms.count("log1p"), transforms.count("logit")
        first_log = transforms.index("log1p") if logs else 0
        first_logit = transforms.index("logit") if logits else 0
        self.log1p = (first_log, first_log + logs)
        self.logit = (first_logit, first_logit + logits)
        self.register_buffer("moments", torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(len(transforms), 1))

    def transform(self, values: Tensor) -> Tensor:
        """t(x) in float64 [B, F]: log(1 + x), log(x / (1 - x)) with x kept 1e-4 from 0 and 1, or x."""
        values = values.to(torch.float64)
        first, end = self.log1p
        if first < end:
            values[:, first:end] = torch.log1p(values[:, first:end].clamp(min=0.0))
        first, end = self.logit
        if first < end:
            values[:, first:end] = torch.logit(values[:, first:end], eps=1e-4)
        return values

    def forward(self, values: Tensor) -> Tensor:
        z = (self.transform(values) - self.moments[:, 0]) / self.moments[:, 1]
        return torch.nan_to_num(z, nan=0.0).clamp(-8.0, 8.0).to(torch.float32)


class VectorInput(nn.Module):
    """Vectors as lists of `length` numbers, or none: values [N], lengths [B] -> float32 [B, length + 1]: the numbers,
    zeros where there is no vector, and then 1 where there is none, else 0. unit: scaled to length 1. Scriptable."""

    def __init__(self, length: int, unit: bool) -> None:
        super().__init__()
        self.length, self.unit = length, unit

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        x = padded(values.to(torch.float32), lengths, self.length)
        if self.unit:
            x = x / torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float64).clamp(min=1e-30)
        return torch.cat([x.to(torch.float32), (lengths == 0).to(torch.float32).unsqueeze(1)], 1)


class PositionNumbers(nn.Module):
    """Numbers of the positions of a sequence: values [N], lengths [B] -> float32 [B, length], standardised; 0 where one
    is missing (NaN) and past a sequence's end. Scriptable."""

    def __init__(self, length: int, transform: Transform) -> None:
        super().__init__()
        self.length, self.standardize = length, Standardize([transform])

    def forward(self, values: Tensor, lengths: Tensor) -> Tensor:
        numbers: Tensor = self.standardize(values.unsqueeze(1))
        return padded(numbers.squeeze(1), lengths, self.length)


class _Piece(NamedTuple):
    """What a feature brings to `Unknown`. columns: that it reads. counts: whether its values are events."""

    places: Tensor
    ids: Tensor
    columns: tuple[str, ...]
    counts: bool


class FeatureEncoder(nn.Module):
    """Raw columns -> (values int64 [V], lengths int32 [K * B], dense float32 [B, F], sequence lengths int64 [S, B]).

    values and lengths are those of a KeyedJaggedTensor with the keys of `keys`. Position i of a sequence is key
    `name.i`, a bag of at most one id: an EmbeddingBagCollection then serves candidate and history from one table
    without pooling the history. An id of a `multi_hash` table is several values side by side. What is fitted to the
    training data (vocabularies, quantiles, moments) lies in buffers and travels with the checkpoint.
    """

    def __init__(self, features: FeatureSet, share: Share | None = None) -> None:
        """share: the part of the dynamic ids that this rank holds; None: all."""
        super().__init__()
        self.features = features
        self.keys = [key for f in features.sparse for key in f.keys]
        self.maps = nn.ModuleDict({t.name: map_of(t, share) for t in features.tables if not _own(features, t)})
        self.dynamic = [t.name for t in features.tables if t.is_dynamic]
        # Tables whose ids lie with several ranks: rows are exchanged, and -1 up to then, at which a lookup fails.
        self.shared = set(self.dynamic) if share else set()
        self.buckets = nn.ModuleDict(
            {f.name: Bucketize(f.edges, f.buckets) for f in features.sparse if f.kind == "bucket"}
        )
        self.numbers = Standardize([f.transform for f in features.numbers])
        self.of_floats = nn.ModuleDict({f.name: float_input(f) for f in features.floats})

    def forward(self, raw: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values: list[Tensor] = []
        lengths: list[Tensor] = []
        slots = {
            name: slots_of(raw[f"{fs[0].raw_columns[0]}.lengths"], fs) for name, fs in self.features.sequences.items()
        }
        for f in self.features.sparse:
            rows, reads = self._rows(f, raw), self.features.table(f.table_name).reads
            if f.role == "sequence":
                order, present = slots[f.sequence]
                values.append(rows[order].flatten())
                lengths.append(present * reads)
            else:
                values.append(rows.flatten())
                many = raw[f"{f.raw_columns[0]}.lengths"].to(torch.int32) if f.many else None
                lengths.append(torch.full(rows.shape[:1], reads, dtype=torch.int32) if many is None else many * reads)
        numbers = [raw[f.raw_columns[0]] for f in self.features.numbers]
        batch = lengths[0].shape[0] // max(1, len(self.features.sparse[0].keys))
        dense = self.numbers(torch.stack(numbers, 1)) if numbers else torch.zeros(batch, 0)
        ends = [
            slots[name][1].view(fs[0].length, batch).sum(0, dtype=torch.int64)
            for name, fs in self.features.sequences.items()
        ]
        sequence_lengths = torch.stack(ends) if ends else torch.zeros(0, batch, dtype=torch.int64)
        return torch.cat(values), torch.cat(lengths), dense, sequence_lengths

    def floats(self, raw: dict[str, Tensor]) -> Tensor | None:
        """What is read of no table: float32 [B, W], by `FeatureSet.float_spans`; None where nothing is."""
        columns = [(self.of_floats[f.name], f.raw_columns[0]) for f in self.features.floats]
        parts = [read(raw[column], raw[f"{column}.lengths"]) for read, column in columns]
        return torch.cat(parts, 1) if parts else None

    def weights(self, raw: dict[str, Tensor], lengths: Tensor) -> Tensor | None:
        """Weights of what `forward` gave as values, float32 [V], beside the lengths that it gave: 1 but for features
        with weights; None where there is no such feature."""
        if not self.features.weighted:
            return None
        keys = len(self.keys)
        per_key = iter(lengths.view(keys, len(lengths) // keys).sum(1).tolist())
        parts = []
        for f in self.features.sparse:
            size = sum(next(per_key) for _ in f.keys)
            if f.weights:
                share = shares(raw[f.weights], raw[f"{f.raw_columns[0]}.lengths"])
                parts.append(share.repeat_interleave(self.features.table(f.table).reads))
            else:
                parts.append(torch.ones(size))
        return torch.cat(parts)

    def unknown(self, raw: dict[str, Tensor], values: Tensor) -> dict[str, Unknown]:
        """Dynamic ids that are left to training, in `values` as `forward` gave them: those that have no row yet; all of
        a table that evicts ids, whose rows may pass to others, or whose ids lie with several ranks."""
        pieces: dict[str, list[_Piece]] = {name: [] for name in self.dynamic}
        start = 0
        for f in self.features.sparse if pieces else ():
            ids = raw[self.features.columns(f)[0]]
            if f.role == "sequence":
                ids = ids[slots_of(raw[f"{f.raw_columns[0]}.lengths"], (f,))[0]]
            end = start + len(ids) * self.features.table(f.table_name).reads
            if f.table in pieces:
                stays = f.table not in self.shared and self.features.table(f.table).mapping == "growing"
                places = (values[start:end] == 0).nonzero().squeeze(1) if stays else torch.arange(end - start)
                first = f.raw_columns not in [piece.columns for piece in pieces[f.table]]
                counts = f.role != "sequence" and first
                pieces[f.table].append(_Piece(places + start, ids[places], f.raw_columns, counts))
            start = end
        return {name: _unknown(parts) for name, parts in pieces.items()}

    def cross(self, f: Feature, raw: dict[str, Tensor]) -> Tensor:
        """Rows of a cross, int64 [B]."""
        columns = [(part, raw[part.raw_columns[0]]) for part in self.features.parts(f)]
        values = [self.buckets[part.name](x) if part.kind == "bucket" else x for part, x in columns]
        return crossed(values, salt(f), f.rows)

    def _rows(self, f: Feature, raw: dict[str, Tensor]) -> Tensor:
        if f.kind == "cross":
            return self.cross(f, raw)
        if f.kind == "bucket":
            return self.buckets[f.name](raw[f.raw_columns[0]])
        if f.kind == "signals":
            return joint_state([raw[column] for column in f.columns])
        ids = raw[f.raw_columns[0]]
        if f.table in self.shared:
            return torch.full_like(ids, -1)
        return self.maps[f.table](ids ^ salt(f) if f.salted else ids)


def float_input(f: Feature) -> VectorInput | PositionNumbers:
    """What reads a feature of `FeatureSet.floats`."""
    return VectorInput(f.length, f.unit) if f.kind == "vector" else PositionNumbers(f.length, f.transform)


def shares(weights: Tensor, lengths: Tensor) -> Tensor:
    """Weights [N] of lists end to end, of lengths int64 [B] -> float32 [N]: over the sum of those of their list without
    their signs; 0 where all are 0. Scriptable."""
    owner = torch.repeat_interleave(lengths, output_size=weights.shape[0])
    exact = weights.to(torch.float64)
    total = torch.zeros(lengths.shape[0], dtype=torch.float64).index_add(0, owner, exact.abs())
    return (exact / total[owner].clamp(min=1e-300)).to(torch.float32)


def padded(values: Tensor, lengths: Tensor, width: int) -> Tensor:
    """Lists [N] end to end, of lengths int64 [B] -> the first `width` values of each [B, width], zeros where there are
    none. Scriptable."""
    position = torch.arange(width)
    there = (lengths.cumsum(0) - lengths).unsqueeze(1) + position + 1
    places = torch.where(position < lengths.unsqueeze(1), there, 0)
    return torch.cat([values.new_zeros(1), values])[places]


def bucket_of(values: Tensor, edges: Tensor) -> Tensor:
    """numbers [.., N], edges float64 [E] or [.., E], ascending -> bucket int64 [.., N]: 0 missing (NaN), else 1 + the
    number of edges <= the value. Scriptable."""
    values = values.to(torch.float64)
    bucket = torch.searchsorted(edges, values, right=True) + 1
    return torch.where(torch.isnan(values), torch.zeros_like(bucket), bucket)


def joint_state(signals: list[Tensor]) -> Tensor:
    """Signals in -1, 0, 1, [N] each -> their joint state int64 [N] in 0..3 ** len(signals) - 1. Scriptable."""
    code = torch.zeros_like(signals[0], dtype=torch.int64)
    for signal in signals:
        code = code * 3 + signal.to(torch.int64) + 1
    return code


def crossed(values: list[Tensor], start: int, rows: int) -> Tensor:
    """Values int64 [..], of one shape -> rows int64 [..] in 0..rows-1 of their hash: from `start` on each value is
    mixed into it in turn, h = mix64(h ^ value). Scriptable."""
    hashed = torch.full_like(values[0], start)
    for value in values:
        hashed = mix64(hashed ^ value)
    return torch.remainder(hashed, rows)


def salt(f: Feature) -> int:
    """What is mixed into the ids of a salted feature, and what the hash of a cross begins with."""
    return int.from_bytes(hashlib.blake2b(f.name.encode(), digest_size=8).digest(), "little", signed=True)


def slots_of(lengths: Tensor, features: tuple[Feature, ...]) -> tuple[Tensor, Tensor]:
    """Jagged lengths [B] -> the order in which the N values stand position by position, and int32 [L * B]: 1 where a
    sample has a value at a position. Values past the longest sequence are left out."""
    positions, starts = features[0].length, lengths.cumsum(0) - lengths
    position = torch.arange(positions).unsqueeze(1)
    present = position < lengths
    return (position + starts)[present], present.flatten().to(torch.int32)


def _unknown(pieces: list[_Piece]) -> Unknown:
    """Places in the values and the ids there, of each feature, as one."""
    places, ids = torch.cat([p.places for p in pieces]), torch.cat([p.ids for p in pieces])
    # NumPy's takes half as long as torch's.
    distinct, which, counts = np.unique(ids.numpy(), return_inverse=True, return_counts=True)
    events = [np.full(len(p.ids), p.counts, np.float64) for p in pieces]
    of_events = np.bincount(which, np.concatenate(events), len(distinct)).astype(np.int64)
    return Unknown(places, *map(torch.from_numpy, (which, distinct, counts, of_events)))


def _own(features: FeatureSet, table: Table) -> bool:
    return features.by_table[table.name][0].kind != "id"
