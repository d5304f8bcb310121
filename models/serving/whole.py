"""Any other model than the ranker as it is served: traced, over inputs laid out as in training.

Q requests, C candidates, S, F, P widths of embeddings, numbers and codes, D sequence width, L sequence length, T tasks.
"""

import warnings
from copy import deepcopy

import torch
from torch import Tensor, nn

from coldrank.models.embeddings import Embedded
from coldrank.models.features import FeatureSet
from coldrank.models.serving.order import code_places, places
from coldrank.models.serving.stage import Looked, Order


class ServedWhole(nn.Module):
    """A model's forward for every candidate; only the lookups of what is given once are done once. Scriptable.

    model: (Embedded, dense [C, F], sequence lengths [S, C]) -> logits [C, T].
    """

    sequences: list[str]

    def __init__(self, model: nn.Module, features: FeatureSet, order: list[Order]) -> None:
        super().__init__()
        inner = [c for o in order for c in places(features, o)]
        self.inputs = torch.tensor(inner, dtype=torch.int64).argsort()
        self.codes = torch.tensor(code_places(features, order), dtype=torch.int64).argsort()
        self.sequences = list(features.sequences)
        shapes = {name: (fs[0].length, sum(features.dim(f) for f in fs)) for name, fs in features.sequences.items()}
        self.static_width = len(inner) - len(features.numbers)
        widths = (len(inner), len(self.codes), sum(a * b for a, b in shapes.values()))
        examples = [torch.rand(3, w) for w in widths]
        flat = _Flat(deepcopy(model).eval(), self.static_width, shapes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of checks of widths, which hold for any number of rows
            self.model = torch.jit.trace(flat, (*examples, torch.ones(len(shapes), 3, dtype=torch.int64)))

    def forward(self, looked: Looked) -> Tensor:
        """Logits [C, T]."""
        a, b = looked.request, looked.candidate
        rows = b.static.shape[0]
        times = rows // max(1, a.static.shape[0])
        once = torch.cat([a.static, a.dense], 1).repeat_interleave(times, 0)
        x = torch.cat([once, b.static, b.dense], 1)[:, self.inputs]
        pc = torch.cat([a.pc.repeat_interleave(times, 0), b.pc], 1)[:, self.codes]
        sequences = [torch.zeros(rows, 0)]
        lengths = [torch.zeros(0, rows, dtype=torch.int64)]
        for name in self.sequences:
            sequences.append(looked.sequences[name].flatten(1).repeat_interleave(times, 0))
            lengths.append(looked.lengths[name].repeat_interleave(times).unsqueeze(0))
        logits: Tensor = self.model(x, pc, torch.cat(sequences, 1), torch.cat(lengths))
        return logits


class _Flat(nn.Module):
    """A model with tensors alone as arguments."""

    def __init__(self, model: nn.Module, static_width: int, shapes: dict[str, tuple[int, int]]) -> None:
        super().__init__()
        self.model, self.static_width, self.shapes = model, static_width, shapes

    def forward(self, x: Tensor, pc: Tensor, flat: Tensor, lengths: Tensor) -> Tensor:
        parts = flat.split([a * b for a, b in self.shapes.values()], 1)
        sequences = {n: p.unflatten(1, s) for (n, s), p in zip(self.shapes.items(), parts, strict=True)}
        embedded = Embedded(x[:, : self.static_width], sequences, pc)
        logits: Tensor = self.model(embedded, x[:, self.static_width :], lengths)
        return logits
