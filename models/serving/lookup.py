"""Raw values of a request -> rows of the tables: many features at once, by a few wide operations.

Q requests, C candidates, V values of a list, F features, E edges, H hashes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coldrank.models.encode import Bucketize, FeatureEncoder, Standardize, bucket_of, salt
from coldrank.models.features import Feature
from coldrank.models.maps import mix64


@dataclass(frozen=True, kw_only=True, slots=True)
class Sides:
    """The features outside sequences whose inputs are given once per request, and those of candidates; lists are apart."""

    request: list[Feature]
    candidate: list[Feature]
    lists: list[Feature]


class Ids(nn.Module):
    """ids of the features that share a map -> rows. map_: None for hashed tables, which are looked up together.

    starts: table -> row of the table's first in what holds its embeddings. Scriptable.
    """

    request: list[str]
    candidate: list[str]
    lists: list[str]

    def __init__(self, sides: Sides, encoder: FeatureEncoder, map_: nn.Module | None, starts: dict[str, int]) -> None:
        super().__init__()
        table = encoder.features.table
        self.hashed = map_ is None
        self.map = nn.Identity() if map_ is None else map_
        self.reads = table((sides.request + sides.candidate + sides.lists)[0].table).reads
        self.request = [f.raw_columns[0] for f in sides.request]
        self.candidate = [f.raw_columns[0] for f in sides.candidate]
        self.lists = [f.raw_columns[0] for f in sides.lists]
        # Per feature: what is mixed into its ids, rows of its table, and where these start.
        self.of_request, self.of_candidate, self.of_lists = (
            torch.tensor(
                [
                    [salt(f) if f.salted else 0 for f in fs],
                    [table(f.table).rows for f in fs],
                    [starts[f.table] for f in fs],
                ],
                dtype=torch.int64,
            ).unsqueeze(2)
            for fs in (sides.request, sides.candidate, sides.lists)
        )

    def forward(self, raw: dict[str, Tensor], requests: int, candidates: int) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Rows int64 of the request features [F, H, Q], of the candidate features [F, H, C], and of each list [V, H]."""
        ids = [(_stacked(raw, self.request, requests).to(torch.int64) ^ self.of_request[0]).flatten()]
        ids.append((_stacked(raw, self.candidate, candidates).to(torch.int64) ^ self.of_candidate[0]).flatten())
        for i, name in enumerate(self.lists):
            ids.append(raw[name].to(torch.int64) ^ self.of_lists[0, i])
        sizes = [x.shape[0] for x in ids]  # not len, which an export takes for a constant
        flat = torch.cat(ids)
        rows = (mix64(flat) if self.hashed else self.map(flat)).view(flat.shape[0], self.reads)
        parts = rows.split(sizes)
        request = self._placed(parts[0].view(len(self.request), requests, self.reads), self.of_request.unsqueeze(3))
        candidate = self._placed(
            parts[1].view(len(self.candidate), candidates, self.reads), self.of_candidate.unsqueeze(3)
        )
        lists = [self._placed(part, self.of_lists[:, i]) for i, part in enumerate(parts[2:])]
        return request.transpose(1, 2), candidate.transpose(1, 2), lists

    def _placed(self, rows: Tensor, of: Tensor) -> Tensor:
        return (torch.remainder(rows, of[1]) if self.hashed else rows) + of[2]


class Buckets(nn.Module):
    """numbers -> rows int64 [F, 1, n] of the features' tables. The edges of each feature are padded with infinity. Scriptable."""

    edges: Tensor
    names: list[str]

    def __init__(self, features: list[Feature], encoder: FeatureEncoder, starts: dict[str, int]) -> None:
        super().__init__()
        self.names = [f.raw_columns[0] for f in features]
        modules = [encoder.buckets[f.name] for f in features]
        edges = [m.edges for m in modules if isinstance(m, Bucketize)]
        whole = torch.full((len(edges), max((len(e) for e in edges), default=0)), float("inf"), dtype=torch.float64)
        for row, own in zip(whole, edges, strict=True):
            row[: len(own)] = own
        self.register_buffer("edges", whole)
        self.starts = torch.tensor([[starts[f.name]] for f in features], dtype=torch.int64).view(-1, 1)

    def forward(self, raw: dict[str, Tensor], rows: int) -> Tensor:
        values = _finite(_stacked(raw, self.names, rows))
        return (bucket_of(values, self.edges) + self.starts).unsqueeze(1)


class Numbers(nn.Module):
    """numbers -> float32 [n, F], standardised as in training. Scriptable."""

    names: list[str]

    def __init__(self, features: list[Feature], encoder: FeatureEncoder) -> None:
        super().__init__()
        self.names = [f.raw_columns[0] for f in features]
        self.standardize = Standardize([f.transform for f in features])
        slots = [encoder.features.numbers.index(f) for f in features]
        self.standardize.moments = encoder.numbers.moments[slots].clone()

    def forward(self, raw: dict[str, Tensor], rows: int) -> Tensor:
        dense: Tensor = self.standardize(_finite(_stacked(raw, self.names, rows)).t())
        return dense


def _stacked(raw: dict[str, Tensor], names: list[str], rows: int) -> Tensor:
    """Inputs of n values each -> [F, n]."""
    if len(names) == 0:
        return torch.zeros(0, rows)
    return torch.stack([raw[name] for name in names])


def _finite(values: Tensor) -> Tensor:
    """float32, as training reads numbers; what is not finite is missing: NaN."""
    values = values.to(torch.float32)
    return torch.where(torch.isfinite(values), values, torch.full_like(values, float("nan")))
