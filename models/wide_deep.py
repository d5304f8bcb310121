"""Wide & Deep (Cheng et al., 2016) on our embedding stage, to compare methods on more than one model.

B batch, D width, F fields, T tasks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coldrank.models.batch import SampleView
from coldrank.models.component import Dropout, Widths
from coldrank.models.embeddings import Embedded, Inputs
from coldrank.models.features import FeatureSet
from coldrank.models.model import Model, ModelModule
from coldrank.modules import MLP


@dataclass(kw_only=True, slots=True)
class WideDeep(Model):
    """Wide & Deep's sizes. A sequence enters as the mean of its positions."""

    tower_hidden: Widths = (64,)
    """Widths of the MLP's layers."""
    dropout: Dropout = 0.0
    """Share of the MLP's units that a training step leaves out."""

    def build(self, features: FeatureSet, tasks: int) -> ModelModule:
        return WideDeepModule(self, features, tasks)


class WideDeepModule(ModelModule):
    """A linear map and an MLP side by side. Both read the embeddings: an id's weight in the wide part is its embedding
    times that of the field."""

    def __init__(self, config: WideDeep, features: FeatureSet, tasks: int) -> None:
        super().__init__()
        self.inputs = Inputs(features)
        self.width = self.inputs.static_dim + sum(self.inputs.sequence_dims.values())
        self.wide = nn.Linear(self.width, tasks)
        self.deep = MLP(self.width, config.tower_hidden, config.dropout)
        self.out = nn.Linear(config.tower_hidden[-1], tasks)

    def forward(self, embedded: Embedded, batch: SampleView) -> Tensor:
        """Logits [B, T]."""
        x = flat(self.inputs, embedded, batch)
        logits: Tensor = self.wide(x) + self.out(self.deep(x))
        return logits


def flat(inputs: Inputs, embedded: Embedded, batch: SampleView) -> Tensor:
    """All inputs side by side [B, D]; positions past a sequence's length are zero and do not count."""
    lengths = batch.sequence_lengths.clamp(min=1).unsqueeze(2)
    means = [inputs.sequence(embedded, name).sum(1) / n for name, n in zip(inputs.sequences, lengths, strict=True)]
    return torch.cat([inputs.static(embedded, batch.dense), *means], 1)
