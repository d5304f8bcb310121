"""Rankers from the literature on our embedding stage, to compare methods on more than one model: Wide & Deep (Cheng et al., 2016),
DeepFM (Guo et al., 2017), DCN-v2 (Wang et al., 2021). All take what `Ranker` takes; a sequence enters as the mean of its positions.

B batch, D width, F fields, T tasks.
"""

import torch
from torch import Tensor, nn

from coldrank.models.embeddings import Embedded, EmbeddingStage
from coldrank.models.ranker import Ranker, RankerConfig
from coldrank.modules import MLP


def make_ranker(config: RankerConfig, stage: EmbeddingStage, dense_dim: int, tasks: int) -> nn.Module:
    """The model of `config.kind`: (embedded, dense [B, F], sequence lengths) -> logits [B, T]."""
    kinds = {"wide_deep": WideDeep, "deepfm": DeepFM, "dcn": DCN}
    return kinds.get(config.kind, Ranker)(config, stage, dense_dim, tasks)


class WideDeep(nn.Module):
    """A linear map and an MLP side by side. Both read the embeddings: an id's weight in the wide part is its embedding times
    that of the field."""

    def __init__(self, config: RankerConfig, stage: EmbeddingStage, dense_dim: int, tasks: int) -> None:
        super().__init__()
        self.width = stage.static_dim + dense_dim + sum(stage.sequence_dims.values())
        self.wide = nn.Linear(self.width, tasks)
        self.deep = MLP(self.width, config.tower_hidden, config.dropout)
        self.out = nn.Linear(config.tower_hidden[-1], tasks)

    def forward(self, embedded: Embedded, dense: Tensor, sequence_lengths: Tensor) -> Tensor:
        """Logits [B, T]."""
        x = _flat(embedded, dense, sequence_lengths)
        logits: Tensor = self.wide(x) + self.out(self.deep(x))
        return logits


class DeepFM(WideDeep):
    """Wide & Deep, and the products of all pairs of fields: sum over i < j of <e_i, e_j>, the same for every task."""

    def __init__(self, config: RankerConfig, stage: EmbeddingStage, dense_dim: int, tasks: int) -> None:
        super().__init__(config, stage, dense_dim, tasks)
        widths = {name: part.stop - part.start for name, part in stage.places.items()}
        self.dim = next(iter(widths.values()))
        for name, width in widths.items():
            if width != self.dim:
                raise ValueError(
                    f"model.kind='deepfm' multiplies fields: feature {name!r} is {width} wide and the first {self.dim}"
                )

    def forward(self, embedded: Embedded, dense: Tensor, sequence_lengths: Tensor) -> Tensor:
        """Logits [B, T]."""
        fields = embedded.static.unflatten(1, (-1, self.dim))
        pairs = 0.5 * (fields.sum(1).square() - fields.square().sum(1)).sum(1, keepdim=True)
        return super().forward(embedded, dense, sequence_lengths) + pairs


class DCN(nn.Module):
    """Cross layers x_{l+1} = x_0 * (W x_l + b) + x_l beside an MLP, a linear map over both: DCN-v2, parallel."""

    def __init__(self, config: RankerConfig, stage: EmbeddingStage, dense_dim: int, tasks: int) -> None:
        super().__init__()
        width = stage.static_dim + dense_dim + sum(stage.sequence_dims.values())
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(config.crosses))
        self.deep = MLP(width, config.tower_hidden, config.dropout)
        self.out = nn.Linear(width + config.tower_hidden[-1], tasks)

    def forward(self, embedded: Embedded, dense: Tensor, sequence_lengths: Tensor) -> Tensor:
        """Logits [B, T]."""
        x = first = _flat(embedded, dense, sequence_lengths)
        for cross in self.crosses:
            x = first * cross(x) + x
        logits: Tensor = self.out(torch.cat([x, self.deep(first)], 1))
        return logits


def _flat(embedded: Embedded, dense: Tensor, sequence_lengths: Tensor) -> Tensor:
    """All inputs side by side [B, D]; positions past a sequence's length are zero and do not count."""
    lengths = sequence_lengths.clamp(min=1).unsqueeze(2)
    means = [sequence.sum(1) / n for sequence, n in zip(embedded.sequences.values(), lengths, strict=True)]
    return torch.cat([embedded.static, dense, *means], 1)
