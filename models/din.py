"""The deep interest network (Zhou et al., KDD 2018) on our embedding stage.

B batch, L sequence length, D width, Q width of the candidate, T tasks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coldrank.models.batch import SampleView
from coldrank.models.component import Dropout, Widths
from coldrank.models.embeddings import Embedded, Inputs, fixed_features
from coldrank.models.features import Feature, FeatureSet
from coldrank.models.heads.head import Head
from coldrank.models.model import Model, ModelModule
from coldrank.modules.attended import without_padding
from coldrank.modules.dropout import Dropout as DropoutLayer


@dataclass(kw_only=True, slots=True)
class DIN(Model):
    """DIN's sizes. A sequence is compared with the candidate by the ids that have a table in common."""

    unit_hidden: Widths = (36,)
    """Widths of the activation unit's layers."""
    softmax: bool = False
    """Whether the weights of a history's events add up to 1; in the paper they do not, so that their sum tells how much
    the user likes the like of the candidate."""
    tower_hidden: Widths = (64,)
    """Widths of the MLP's layers."""
    dropout: Dropout = 0.0
    """Share of the MLP's units that a training step leaves out."""

    def build(self, features: FeatureSet, tasks: int) -> "DINModule":
        return DINModule(self, features, tasks)

    def problem(self, features: FeatureSet, tasks: Mapping[str, Head], *, sequences: bool = False) -> str:
        if not features.sequences:
            return "model='din' reads a history; no feature has role 'sequence'"
        alone = next((name for name in features.sequences if not compared(features, name)), None)
        if alone is None:
            return ""
        return f"model='din': sequence {alone!r} has no id of a table that a feature of role 'item' reads"


def compared(features: FeatureSet, sequence: str) -> dict[str, str]:
    """Features of a sequence -> that of the candidate which reads the same ids of the same table."""
    ids = [f for f in fixed_features(features) if f.role == "item" and _has_plain_ids(f)]
    pairs: dict[str, str] = {}
    for f in filter(_has_plain_ids, features.sequences[sequence]):
        of_table = [item.name for item in ids if item.table == f.table]
        pairs |= {f.name: of_table[0]} if of_table else {}
    return pairs


def _has_plain_ids(feature: Feature) -> bool:
    return feature.kind == "id" and not feature.salted


class PReLULayers(nn.Module):
    """f(W x + b), stacked, f(s) = s where s > 0, else alpha s, with an alpha for each unit."""

    def __init__(self, in_dim: int, widths: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        sizes = (in_dim, *widths)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, widths, strict=False))
        self.alphas = nn.ParameterList(nn.Parameter(torch.full((width,), 0.25)) for width in widths)
        self.dropout = DropoutLayer(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: float [..., in_dim] -> [..., widths[-1]]."""
        for layer, alpha in zip(self.layers, self.alphas, strict=True):
            s = layer(x)
            x = self.dropout(torch.where(s > 0, s, alpha * s))
        return x


class Interest(nn.Module):
    """v_U = sum_j a(e_j, v_A) e_j over a user's events e_j, for a candidate v_A.

    The activation unit a is a network over v_A, e_j, v_A - e_j and v_A * e_j. What an event has beside the ids that it
    shares with the candidate is read of e_j alone.
    """

    def __init__(self, query_dim: int, sequence_dim: int, hidden: tuple[int, ...], softmax: bool) -> None:
        super().__init__()
        self.query_dim, self.softmax = query_dim, softmax
        self.unit = PReLULayers(3 * query_dim + sequence_dim, hidden)
        self.weight = nn.Linear(hidden[-1], 1)

    def forward(self, query: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
        """query: float [B, Q]; sequence: float [B, L, D], of which the first Q are compared; lengths: int64 [B]
        -> [B, D]; zeros where a sequence is empty."""
        sequence = without_padding(sequence, lengths)
        shared = sequence[:, :, : self.query_dim]
        q = query.unsqueeze(1).expand_as(shared)
        weights = self.weight(self.unit(torch.cat([q, sequence, q - shared, q * shared], 2))).squeeze(2)
        if self.softmax:
            # Of an empty sequence the first position is kept: it is zero, and the softmax finite.
            past = torch.arange(sequence.shape[1], device=sequence.device) >= lengths.clamp(min=1).unsqueeze(1)
            weights = torch.softmax(weights.masked_fill(past, -math.inf), 1)
        return (weights.unsqueeze(1) @ sequence).squeeze(1)


class DINModule(ModelModule):
    """Every input outside sequences and the interest of each sequence, side by side, through layers with PReLU.

    The paper's Dice is left out: it takes mean and variance of a batch, whose rows would then meet in the loss,
    and ranks, micro-batches and hooks that pass through the model twice change it.
    """

    def __init__(self, config: DIN, features: FeatureSet, tasks: int) -> None:
        super().__init__()
        self.inputs = Inputs(features)
        self.pairs = {name: compared(features, name) for name in self.inputs.sequences}
        self.beside = {n: [f for f in fs if f not in self.pairs[n]] for n, fs in self.inputs.sequences.items()}
        dims = self.inputs.sequence_dims
        query = {n: sum(features.dim(features.by_name[f]) for f in pairs) for n, pairs in self.pairs.items()}
        self.interests = nn.ModuleDict(
            {n: Interest(query[n], dim, config.unit_hidden, config.softmax) for n, dim in dims.items()}
        )
        width = self.inputs.static_dim + sum(dims.values())
        self.deep = PReLULayers(width, config.tower_hidden, config.dropout)
        self.out = nn.Linear(config.tower_hidden[-1], tasks)

    def forward(self, embedded: Embedded, batch: SampleView) -> Tensor:
        """Logits [B, T]."""
        parts = [self.inputs.static(embedded, batch.dense)]
        for (name, interest), lengths in zip(self.interests.items(), batch.sequence_lengths, strict=True):
            query = torch.cat([embedded[item] for item in self.pairs[name].values()], 1)
            events = torch.cat([embedded[f] for f in (*self.pairs[name], *self.beside[name])], 2)
            parts.append(interest(query, events, lengths))
        logits: Tensor = self.out(self.deep(torch.cat(parts, 1)))
        return logits
