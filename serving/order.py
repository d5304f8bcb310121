"""Which of training's columns the columns of a served side are.

Q requests, C candidates, W columns.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from coldrank.models.embeddings import fixed_features
from coldrank.models.features import Feature, FeatureSet
from coldrank.serving.pack import spread
from coldrank.serving.stage import Order


def places(features: FeatureSet, order: Order) -> list[int]:
    """Where the columns of a side, embeddings and then numbers, stand among the static inputs of training."""
    spans = _spans([*fixed_features(features), *features.numbers], features.dim)
    return [c for f in [*order.static, *order.dense] for c in spans[f.name]]


def columns_of(features: FeatureSet, order: Order, name: str) -> list[int]:
    """The columns that a feature has among the embeddings of a side; none if it is of the other side."""
    return _spans(order.static, features.dim).get(name, [])


class Columns(nn.Module):
    """Some columns of what the sides hold, in an order of their own. Scriptable.

    per_candidate: whether one of them is the candidates'.
    """

    def __init__(self, order: list[list[int]], wanted: list[int]) -> None:
        """order: per side, what its columns are called; wanted: names of such columns."""
        super().__init__()
        both = order[0] + order[1]
        positions = [both.index(name) for name in wanted]
        self.of_request = max(positions, default=0) < len(order[0])
        self.per_candidate = not self.of_request
        self.index = torch.tensor(positions, dtype=torch.int64)

    def forward(self, request: Tensor, candidate: Tensor) -> Tensor:
        """[Q, ..], [C, ..] -> [Q, W] if all are the request's, else [C, W]."""
        if self.of_request:
            return request[:, self.index]
        rows = candidate.shape[0]
        return torch.cat([spread(request, rows).expand(rows, -1), candidate], 1)[:, self.index]


def code_places(features: FeatureSet, order: Sequence[Order]) -> list[int]:
    """Where the columns of the codes of both sides, one after the other, stand among those of training."""
    spans = _spans(features.codes, features.dim)
    return [c for o in order for f in o.pc for c in spans[f.name]]


def _spans(features: Sequence[Feature], dim: Callable[[Feature], int]) -> dict[str, list[int]]:
    """Columns of each feature, one after another."""
    spans, start = {}, 0
    for f in features:
        spans[f.name] = list(range(start, start + dim(f)))
        start += dim(f)
    return spans
