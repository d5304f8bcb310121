"""Raw values of a request -> rows of the tables: many features at once, by a few wide operations.

Q requests, C candidates, V values of a list, F features, E edges, H hashes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coldrank.models.encode import Bucketize, FeatureEncoder, Standardize, salt
from coldrank.models.features import Feature
from coldrank.models.ids.mixing import mix64
from coldrank.serving.learnt import Learnt, first_answer, own_rows
from coldrank.serving.pack import Pack, Packed


@dataclass(frozen=True, kw_only=True, slots=True)
class IdSides:
    """The features outside sequences whose inputs are given once per request, and those of candidates; lists are
    apart."""

    request: list[Feature]
    candidate: list[Feature]
    lists: list[Feature]


class Ids(nn.Module):
    """ids of the features whose ids become rows in one way -> rows. Scriptable.

    kind: `learnt` (by vocabularies and maps of dynamic ids), `hash`, `identity`, or the name of a table of several
    hashes.
    starts: table -> its row 0 among those of all. of_request, of_candidate, of_lists: int64 [3, F, 1]: per feature what
    is mixed into its ids; rows of its table, or its first answer (`learnt`); where its table starts. request,
    candidate: where their ids are among the integers of their side.
    """

    request: Tensor
    candidate: Tensor
    lists: list[str]
    of_request: Tensor
    of_candidate: Tensor
    of_lists: Tensor

    def __init__(self, sides: IdSides, encoder: FeatureEncoder, pack: Pack, kind: str, starts: dict[str, int]) -> None:
        super().__init__()
        tables = list(dict.fromkeys(f.table for f in sides.request + sides.candidate + sides.lists))
        self.reads = encoder.features.table(tables[0]).reads
        self.hashed, self.learnt = kind == "hash", kind == "learnt"
        self.map: nn.Module = nn.Identity()
        if self.learnt:
            self.map = Learnt([encoder.maps[t] for t in tables])
            salts = dict(zip(tables, self.map.salts, strict=True))
        elif kind not in ("hash", "identity"):
            self.map = encoder.maps[kind]
        for side in ("request", "candidate", "lists"):
            of = [
                [
                    salts[f.table] if self.learnt else salt(f) if f.salted else 0,
                    first_answer(tables.index(f.table)) if self.learnt else encoder.features.table(f.table).rows,
                    starts[f.table],
                ]
                for f in getattr(sides, side)
            ]
            # As buffers, for a later state of the model may have others.
            self.register_buffer(f"of_{side}", torch.tensor(of, dtype=torch.int64).view(-1, 3).t().unsqueeze(2))
        self.lists = [f.raw_columns[0] for f in sides.lists]
        self.request, self.candidate = (
            torch.tensor([names.index(f.raw_columns[0]) for f in fs], dtype=torch.int64)
            for names, fs in zip(pack.scalars[::2], (sides.request, sides.candidate), strict=True)
        )

    def forward(self, packed: Packed, request: list[Tensor], candidate: list[Tensor]) -> list[Tensor]:
        """Adds rows int64 [F * H, Q] of the request features to `request`, those of the candidate features [F * H, C]
        to `candidate`, and returns those of each list [V, H]."""
        ids: list[Tensor] = []
        if len(self.request) > 0:
            ids.append((packed.integers[0].index_select(0, self.request) ^ self.of_request[0]).flatten())
        if len(self.candidate) > 0:
            ids.append((packed.integers[1].index_select(0, self.candidate) ^ self.of_candidate[0]).flatten())
        for i, name in enumerate(self.lists):
            ids.append(packed.lists[name] ^ self.of_lists[0, i])
        sizes = [x.shape[0] for x in ids]  # not len, which an export takes for a constant
        flat = torch.cat(ids)
        parts = (mix64(flat) if self.hashed else self.map(flat)).view(flat.shape[0], self.reads).split(sizes)
        number = 0
        if len(self.request) > 0:
            request.append(self._side(parts[number], self.of_request))
            number += 1
        if len(self.candidate) > 0:
            candidate.append(self._side(parts[number], self.of_candidate))
            number += 1
        return [self._placed(part, self.of_lists[:, i]) for i, part in enumerate(parts[number:])]

    def _side(self, rows: Tensor, of: Tensor) -> Tensor:
        """[F * n, H] -> [F * H, n]."""
        features = of.shape[1]
        rows = rows.view(features, rows.shape[0] // features, self.reads).transpose(1, 2)
        return self._placed(rows, of.unsqueeze(3)).flatten(0, 1)

    def _placed(self, rows: Tensor, of: Tensor) -> Tensor:
        if self.learnt:
            rows = own_rows(rows, of[1])
        elif self.hashed:
            rows = torch.remainder(rows, of[1])
        return rows + of[2]


class Values(nn.Module):
    """numbers -> rows int64 [F, n] of the bucket features' tables, and standardised numbers float32 [n, F]. Scriptable.

    edges: float32 [F, E], each the least that is not below the feature's own, padded with infinity to one less than a
    power of two. buckets, numbers: which of the side's numbers they read.
    """

    edges: Tensor
    starts: Tensor
    buckets: Tensor
    numbers: Tensor
    steps: list[int]

    def __init__(self, side: list[Feature], encoder: FeatureEncoder, names: list[str], starts: dict[str, int]) -> None:
        """names: the side's numbers."""
        super().__init__()
        buckets, numbers = ([f for f in side if f.kind == kind] for kind in ("bucket", "number"))
        self.buckets, self.numbers = (
            torch.tensor([names.index(f.raw_columns[0]) for f in fs], dtype=torch.int64) for fs in (buckets, numbers)
        )
        modules = [encoder.buckets[f.name] for f in buckets]
        edges = [m.edges for m in modules if isinstance(m, Bucketize)]
        self.steps = [1 << n for n in reversed(range(max((len(e) for e in edges), default=0).bit_length()))]
        whole = torch.full((len(edges), sum(self.steps)), math.inf)
        for row, cuts in zip(whole, edges, strict=True):
            near = cuts.to(torch.float32)
            above = torch.nextafter(near, torch.tensor(math.inf))
            row[: len(cuts)] = torch.where(near.to(torch.float64) < cuts, above, near)
        self.register_buffer("edges", whole)
        self.register_buffer("starts", torch.tensor([starts[f.name] for f in buckets], dtype=torch.int64).view(-1, 1))
        self.standardize = Standardize([f.transform for f in numbers])
        slots = [encoder.features.numbers.index(f) for f in numbers]
        self.standardize.moments = encoder.numbers.moments[slots].clone()
        self.nan = math.nan

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The side's numbers, float32 as training reads them."""
        buckets = torch.zeros(0, values.shape[1], dtype=torch.int64)
        dense = torch.zeros(values.shape[1], 0)
        values = torch.nan_to_num(values, self.nan, self.nan, self.nan)  # what is not finite is missing
        if len(self.buckets) > 0:
            buckets = self._bucket(values.index_select(0, self.buckets)) + self.starts
        if len(self.numbers) > 0:
            dense = self.standardize(values.index_select(0, self.numbers).t())
        return buckets, dense

    def _bucket(self, values: Tensor) -> Tensor:
        """`bucket_of` for float32 [F, n], by a search in which all values take every step together."""
        bucket = torch.zeros_like(values, dtype=torch.int64)
        for step in self.steps:
            bucket = torch.add(bucket, self.edges[:, step - 1 :].gather(1, bucket) <= values, alpha=step)
        return bucket + ~torch.isnan(values)
