"""Features of a request that are lists of floats: vectors, and the buckets and numbers of a sequence's positions.

Q requests, n rows of a side, V values of a list, L sequence length, D width.
"""

import math
from copy import deepcopy

import torch
from torch import Tensor, nn

from coldrank.models.encode import FeatureEncoder
from coldrank.models.features import Feature
from coldrank.models.projected import Projected

Lists = dict[str, Tensor]


class VectorReader(nn.Module):
    """A vector of each row of a side, mapped: [n, D]. Scriptable."""

    def __init__(self, f: Feature, encoder: FeatureEncoder, projected: Projected) -> None:
        super().__init__()
        self.column, self.lengths = f.raw_columns[0], f"{f.raw_columns[0]}.lengths"
        self.read, self.map = deepcopy(encoder.of_floats[f.name]), deepcopy(projected.vectors[f.name])

    def forward(self, lists: Lists) -> Tensor:
        x: Tensor = self.map(self.read(lists[self.column], lists[self.lengths]))
        return x


class PositionReader(nn.Module):
    """A number of each position of a sequence, standardised: [Q, L, 1]. What is infinite is missing. Scriptable."""

    def __init__(self, f: Feature, encoder: FeatureEncoder) -> None:
        super().__init__()
        self.name, self.column, self.lengths = f.name, f.raw_columns[0], f"{f.raw_columns[0]}.lengths"
        self.read, self.nan = deepcopy(encoder.of_floats[f.name]), math.nan

    def forward(self, lists: Lists) -> Tensor:
        values = torch.nan_to_num(lists[self.column], self.nan, self.nan, self.nan)
        x: Tensor = self.read(values, lists[self.lengths])
        return x.unsqueeze(2)


class PositionBuckets(nn.Module):
    """Rows of the buckets of a sequence's numbers: int64 [V, 1], from the table's `start` on. What is infinite is
    missing. Scriptable."""

    def __init__(self, f: Feature, encoder: FeatureEncoder, start: int) -> None:
        super().__init__()
        self.name, self.column, self.start = f.name, f.raw_columns[0], start
        self.bucket, self.nan = deepcopy(encoder.buckets[f.name]), math.nan

    def forward(self, lists: Lists) -> Tensor:
        values = torch.nan_to_num(lists[self.column], self.nan, self.nan, self.nan)
        rows: Tensor = self.bucket(values)
        return rows.unsqueeze(1) + self.start
