"""A model: a linear map, and products of pairs of features through a map of each to one width (a field-wise
factorization machine)."""

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from coldrank.models.batch import SampleView
from coldrank.models.embeddings import Embedded, Inputs, fixed_features
from coldrank.models.features import FeatureSet
from coldrank.models.model import Model, ModelModule


@dataclass(kw_only=True, slots=True)
class Pairs(Model):
    """The model's sizes."""

    width: PositiveInt = 8
    """Of what the features are mapped to."""

    def build(self, features: FeatureSet, tasks: int) -> ModelModule:
        return PairsModule(self, features, tasks)


class PairsModule(ModelModule):
    """Logits [B, T] of everything outside sequences."""

    def __init__(self, config: Pairs, features: FeatureSet, tasks: int) -> None:
        super().__init__()
        self.inputs = Inputs(features)
        self.linear = nn.Linear(self.inputs.static_dim, tasks)
        fixed = fixed_features(features)
        self.maps = nn.ModuleDict({f.name: nn.Linear(features.dim(f), config.width) for f in fixed})
        self.of_tasks = nn.Linear(config.width, tasks)

    def forward(self, embedded: Embedded, batch: SampleView) -> Tensor:
        fields = torch.stack([self.maps[name](embedded[name]) for name in self.inputs.fixed], 1)
        pairs = 0.5 * (fields.sum(1).square() - fields.square().sum(1))
        logits: Tensor = self.linear(self.inputs.static(embedded, batch.dense)) + self.of_tasks(pairs)
        return logits
