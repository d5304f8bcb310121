"""Ordered levels: stars, grades of relevance.

The cumulative model (proportional odds; McCullagh, 1980): P(label above the k-th level) = sigmoid(z - t_k), with the
logit z and thresholds t_1 < ... < t_(K-1) that all rows share. K levels.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from coldrank.models.heads.head import Head, HeadModule

# Two thresholds stay so far apart, so that no level becomes impossible.
_LEAST_GAP = 1e-6


@dataclass(kw_only=True, slots=True)
class Ordinal(Head):
    """A label of one of several ordered levels, whole numbers one after another. The expected level is served."""

    gives: ClassVar[str] = "expected level"
    levels: Annotated[int, Field(ge=2)] = field(kw_only=False)
    """How many there are."""
    lowest: int = 1
    """The first of them: stars from 1 on, grades of relevance from 0."""
    ks: tuple[PositiveInt, ...] = (5, 10)
    """Of NDCG@K."""

    @property
    def metrics(self) -> tuple[str, ...]:
        return "xauc", "mae", *(f"ndcg@{k}" for k in self.ks), "calibration", "label_mean"

    def build(self) -> "OrdinalModule":
        return OrdinalModule(self)

    def label_problem(self, labels: NDArray[np.floating[Any]]) -> tuple[NDArray[np.bool_], str]:
        highest = self.lowest + self.levels - 1
        wrong = (labels < self.lowest) | (labels > highest) | (labels != np.round(labels))
        return wrong, f"is no level: there are {self.levels}, {self.lowest} to {highest}"

    def grades(self, labels: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        return labels - self.lowest


class OrdinalModule(HeadModule):
    """first: t_1. gaps: of each other threshold to the one before, through softplus, [K - 2]. At first all levels are
    alike at a logit of 0."""

    def __init__(self, config: Ordinal) -> None:
        super().__init__()
        self.levels, self.lowest, self.least_gap = config.levels, config.lowest, _LEAST_GAP
        even = [math.log(k / (config.levels - k)) for k in range(1, config.levels)]
        gaps = [b - a - _LEAST_GAP for a, b in pairwise(even)]
        self.first = nn.Parameter(torch.tensor(even[0]))
        self.gaps = nn.Parameter(torch.tensor([math.log(math.expm1(gap)) for gap in gaps]))

    def widths(self) -> Tensor:
        """t_(k+1) - t_k, [K - 2]."""
        return F.softplus(self.gaps) + self.least_gap

    def thresholds(self) -> Tensor:
        """[K - 1], ascending."""
        return torch.cat([self.first.view(1), self.first + self.widths().cumsum(0)])

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """-log P(label). With a the threshold below the label's level and b the one above, P = sigmoid(z - a) -
        sigmoid(z - b) = sigmoid(z - a) sigmoid(b - z) (1 - e^(a - b)); the first level has no a, the last no b, and
        neither the last factor."""
        known = ~torch.isnan(labels)
        level = torch.where(known, labels - self.lowest, 0.0).long()
        at = F.one_hot(level, self.levels).to(logits.dtype)
        over = logits.unsqueeze(-1) - self.thresholds()
        losses = (at[..., 1:] * F.softplus(-over) + at[..., :-1] * F.softplus(over)).sum(-1)
        inner = torch.log(-torch.expm1(-self.widths()))
        losses = losses - (at[..., 1:-1] * inner).sum(-1)
        return torch.where(known, losses, 0.0)

    def predict(self, logits: Tensor) -> Tensor:
        return self.lowest + torch.sigmoid(logits.unsqueeze(-1) - self.thresholds()).sum(-1)
