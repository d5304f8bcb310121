"""The adaptive factorization network (Cheng et al., AAAI 2020) on our embedding stage.

B batch, F fields, D width of a field, N logarithmic neurons, T tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from coldrank.models.batch import SampleView
from coldrank.models.component import Dropout, Widths
from coldrank.models.embeddings import Embedded, Inputs
from coldrank.models.features import FeatureSet
from coldrank.models.fm import embedded_fields, number_of_fields, widths_problem
from coldrank.models.heads.head import Head
from coldrank.models.model import Model, ModelModule
from coldrank.modules import MLP


@dataclass(kw_only=True, slots=True)
class AFN(Model):
    """AFN's sizes. Its fields are of one width; a sequence enters as the mean of its positions."""

    neurons: PositiveInt = 32
    """Logarithmic neurons, each a cross of all fields."""
    floor: PositiveFloat = 1e-4
    """What is added to an embedding's absolute values, whose logarithm is taken."""
    tower_hidden: Widths = (64,)
    """Widths of the layers over the crosses."""
    dropout: Dropout = 0.0
    """Share of the layers' units that a training step leaves out."""

    def build(self, features: FeatureSet, tasks: int) -> "AFNModule":
        return AFNModule(self, features, tasks)

    def problem(self, features: FeatureSet, tasks: Mapping[str, Head], *, sequences: bool = False) -> str:
        return widths_problem("afn", features)


class AFNModule(ModelModule):
    """The logarithmic transformation layer, whose neuron j is a cross of fields to powers that are learnt,

        y_j = exp(sum_i w_ij ln(|e_i| + floor)) = prod_i (|e_i| + floor)^w_ij, element by element,

    and an MLP over y_1 .. y_N. Powers begin near 0, with a deviation of 1 / F: every cross near 1.

    Unlike the paper's: no batch normalization after the logarithm and the exponential, as the rows of a batch would
    then meet in the loss, and ranks and micro-batches change it; numbers go into the MLP beside the crosses, as -x and
    x are one under the logarithm. AFN+, the ensemble with an MLP over embeddings of its own, is left out: it takes
    every table twice.
    """

    def __init__(self, config: AFN, features: FeatureSet, tasks: int) -> None:
        super().__init__()
        self.inputs = Inputs(features)
        self.floor = config.floor
        fields, width = number_of_fields(self.inputs), features.dim(features.embedded[0])
        self.powers = nn.Parameter(torch.randn(config.neurons, fields) / fields)
        self.deep = MLP(config.neurons * width + self.inputs.numbers, config.tower_hidden, config.dropout)
        self.out = nn.Linear(config.tower_hidden[-1], tasks)

    def forward(self, embedded: Embedded, batch: SampleView) -> Tensor:
        """Logits [B, T]."""
        logarithms = torch.log(embedded_fields(self.inputs, embedded, batch).abs() + self.floor)
        crosses = torch.exp(self.powers @ logarithms).flatten(1)
        logits: Tensor = self.out(self.deep(torch.cat([crosses, batch.dense], 1)))
        return logits
