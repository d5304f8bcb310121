"""DeepFM (Guo et al., 2017) on our embedding stage.

B batch, D width, F fields, T tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from coldrank.models.batch import SampleView
from coldrank.models.embeddings import Embedded, fixed_features
from coldrank.models.features import FeatureSet
from coldrank.models.heads.head import Head
from coldrank.models.wide_deep import WideDeep, WideDeepModule


@dataclass(kw_only=True, slots=True)
class DeepFM(WideDeep):
    """DeepFM's sizes. Its fields, the features outside sequences, are of one width."""

    def build(self, features: FeatureSet, tasks: int) -> "DeepFMModule":
        return DeepFMModule(self, features, tasks)

    def problem(self, features: FeatureSet, tasks: Mapping[str, Head], *, sequences: bool = False) -> str:
        widths = {f.name: features.dim(f) for f in fixed_features(features)}
        return f"model='deepfm' needs fields of one width; dim is {widths}" if len(set(widths.values())) > 1 else ""


class DeepFMModule(WideDeepModule):
    """Wide & Deep, and the products of all pairs of fields: sum over i < j of <e_i, e_j>, the same for every task."""

    def forward(self, embedded: Embedded, batch: SampleView) -> Tensor:
        """Logits [B, T]."""
        fields = torch.stack([embedded[name] for name in self.inputs.fixed], 1)
        pairs = 0.5 * (fields.sum(1).square() - fields.square().sum(1)).sum(1, keepdim=True)
        return super().forward(embedded, batch) + pairs
