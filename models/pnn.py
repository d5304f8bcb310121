"""Product-based neural networks (Qu et al., ICDM 2016) on our embedding stage.

B batch, F fields, M width of a field, D1 width of the product layer, T tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from coldrank.models.batch import SampleView
from coldrank.models.component import Dropout, Widths
from coldrank.models.embeddings import Embedded, Inputs
from coldrank.models.features import FeatureSet
from coldrank.models.fm import embedded_fields, number_of_fields, rows_of_numbers, widths_problem
from coldrank.models.heads.head import Head
from coldrank.models.model import Model, ModelModule
from coldrank.modules import MLP
from coldrank.modules.dropout import Dropout as DropoutLayer


@dataclass(kw_only=True, slots=True)
class PNN(Model):
    """PNN's sizes. Its fields are of one width; a sequence enters as the mean of its positions."""

    products: Literal["inner", "outer", "both"] = "inner"
    """What the product layer reads of pairs of fields. `inner`: IPNN; `outer`: OPNN; `both`: PNN*."""
    tower_hidden: Widths = (64,)
    """Widths of the layers; the first is the product layer."""
    dropout: Dropout = 0.0
    """Share of the layers' units that a training step leaves out."""

    def build(self, features: FeatureSet, tasks: int) -> "PNNModule":
        return PNNModule(self, features, tasks)

    def problem(self, features: FeatureSet, tasks: Mapping[str, Head], *, sequences: bool = False) -> str:
        return widths_problem("pnn", features)


class PNNModule(ModelModule):
    """A product layer over the fields f_1 .. f_F, and layers over it. Of its unit n,

        l_1 = relu(l_z + l_p + b_1)
        l_z^n = W_z^n . z            z = (f_1, ..., f_F)
        l_p^n = W_p^n . p            . : sum of the products of the elements

    inner, p_ij = <f_i, f_j>, where W_p^n = theta^n theta^n^T:  l_p^n = |sum_i theta_i^n f_i|^2
    outer, p = f_sum f_sum^T, where f_sum = sum_i f_i; both: the sum of the two, each with weights of its own.

    The field of a number is a row of its own, times its value, standardised. The paper is
    arXiv 1611.00144, whose `inner` is its first-order decomposition and whose `outer` its superposition.
    """

    def __init__(self, config: PNN, features: FeatureSet, tasks: int) -> None:
        super().__init__()
        self.inputs = Inputs(features)
        width = features.dim(features.embedded[0])
        fields = number_of_fields(self.inputs) + self.inputs.numbers
        first, *rest = config.tower_hidden
        self.numbers = rows_of_numbers(self.inputs, width)
        self.linear = nn.Linear(fields * width, first)
        self.inner = nn.Linear(fields, first, bias=False) if config.products != "outer" else None
        self.outer = nn.Linear(width * width, first, bias=False) if config.products != "inner" else None
        self.dropout = DropoutLayer(config.dropout)
        self.deep = MLP(first, rest, config.dropout) if rest else nn.Identity()
        self.out = nn.Linear(config.tower_hidden[-1], tasks)

    def forward(self, embedded: Embedded, batch: SampleView) -> Tensor:
        """Logits [B, T]."""
        numbers = batch.dense.unsqueeze(2) * self.numbers
        fields = torch.cat([embedded_fields(self.inputs, embedded, batch), numbers], 1)
        x = self.linear(fields.flatten(1))
        if self.inner is not None:
            x = x + (self.inner.weight @ fields).square().sum(2)
        if self.outer is not None:
            total = fields.sum(1)
            x = x + self.outer((total.unsqueeze(2) * total.unsqueeze(1)).flatten(1))
        logits: Tensor = self.out(self.deep(self.dropout(torch.relu(x))))
        return logits
