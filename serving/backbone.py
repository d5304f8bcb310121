"""A backbone as it is served: traced, over inputs laid out as in training.

Q requests, C candidates, S, F widths of embeddings and numbers, D sequence width, L sequence length, T tasks.
"""

import warnings
from copy import deepcopy

import torch
from torch import Tensor, nn

from coldrank.models.embeddings import Embedded
from coldrank.models.features import FeatureSet
from coldrank.serving.order import Columns, places, spread
from coldrank.serving.stage import Looked, Order


class ServedBackbone(nn.Module):
    """A model of models/backbones.py for every candidate; the lookups of what is given once, and the means of the sequences, are
    done once. Scriptable."""

    sequences: list[str]

    def __init__(self, model: nn.Module, features: FeatureSet, order: list[Order]) -> None:
        super().__init__()
        inner = [places(features, o) for o in order]
        width = len(inner[0]) + len(inner[1])
        self.inputs = Columns(inner, list(range(width)))
        self.sequences = list(features.sequences)
        widths = {name: sum(features.dim(f) for f in fs) for name, fs in features.sequences.items()}
        self.static_width = width - len(features.numbers)
        flat = _Flat(deepcopy(model).eval(), self.static_width, widths)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of checks of widths, which hold for any number of rows
            self.model = torch.jit.trace(flat, (torch.rand(3, width), torch.rand(3, sum(widths.values()))))

    def forward(self, looked: Looked) -> Tensor:
        """Logits [C, T]."""
        a, b = looked.request, looked.candidate
        candidate = torch.cat([b.static, b.dense], 1)
        x = self.inputs(torch.cat([a.static, a.dense], 1), candidate)
        rows = candidate.shape[0]
        means = [torch.zeros(a.static.shape[0], 0)]
        for name in self.sequences:
            means.append(looked.sequences[name].sum(1) / looked.lengths[name].clamp(min=1).unsqueeze(1))
        logits: Tensor = self.model(
            spread(x, rows).expand(rows, -1), spread(torch.cat(means, 1), rows).expand(rows, -1)
        )
        return logits


class _Flat(nn.Module):
    """A backbone with tensors alone as arguments; of a sequence it reads the mean, so a sequence of that alone is the same."""

    def __init__(self, model: nn.Module, static_width: int, widths: dict[str, int]) -> None:
        super().__init__()
        self.model, self.static_width, self.widths = model, static_width, widths

    def forward(self, x: Tensor, means: Tensor) -> Tensor:
        parts = zip(self.widths, means.split(list(self.widths.values()), 1), strict=True)
        embedded = Embedded(x[:, : self.static_width], {n: p.unsqueeze(1) for n, p in parts}, x[:, :0])
        lengths = torch.ones(len(self.widths), 1, dtype=torch.int64)
        logits: Tensor = self.model(embedded, x[:, self.static_width :], lengths)
        return logits
