"""DCN-v2 (Wang et al., 2021), parallel, on our embedding stage.

B batch, D width, F fields, T tasks.
"""

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from coldrank.models.batch import SampleView
from coldrank.models.embeddings import Embedded, Inputs
from coldrank.models.features import FeatureSet
from coldrank.models.model import ModelModule
from coldrank.models.wide_deep import WideDeep, flat
from coldrank.modules import MLP


@dataclass(kw_only=True, slots=True)
class DCN(WideDeep):
    """DCN-v2's sizes. A sequence enters as the mean of its positions."""

    crosses: PositiveInt = 3
    """Cross layers."""

    def build(self, features: FeatureSet, tasks: int) -> "DCNModule":
        return DCNModule(self, features, tasks)


class DCNModule(ModelModule):
    """Cross layers x_{l+1} = x_0 * (W x_l + b) + x_l beside an MLP, a linear map over both: DCN-v2, parallel."""

    def __init__(self, config: DCN, features: FeatureSet, tasks: int) -> None:
        super().__init__()
        self.inputs = Inputs(features)
        width = self.inputs.static_dim + sum(self.inputs.sequence_dims.values())
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(config.crosses))
        self.deep = MLP(width, config.tower_hidden, config.dropout)
        self.out = nn.Linear(width + config.tower_hidden[-1], tasks)

    def forward(self, embedded: Embedded, batch: SampleView) -> Tensor:
        """Logits [B, T]."""
        x = first = flat(self.inputs, embedded, batch)
        for cross in self.crosses:
            x = first * cross(x) + x
        logits: Tensor = self.out(torch.cat([x, self.deep(first)], 1))
        return logits
