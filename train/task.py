"""What one training step computes: embeddings, then everything dense."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded, EmbeddingStage
from coldrank.models.features import FeatureSet
from coldrank.models.ranker import Ranker, RankerConfig
from coldrank.modules.losses import MaskedBCE


class Outputs(NamedTuple):
    """loss: scalar. logits: float32 [B, T]. task_losses: sum over the known labels and their number, [T] each, detached."""

    loss: Tensor
    logits: Tensor
    task_losses: tuple[Tensor, Tensor]


class RankingTask(nn.Module):
    """Ranker and loss. `forward` is the embedding lookup and one call of `dense`, so that TorchRec's pipelines trace the
    lookup alone and whatever the dense part does stays inside one untraced call."""

    def __init__(
        self,
        features: FeatureSet,
        config: RankerConfig,
        loss_weights: dict[str, float],
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.embeddings = EmbeddingStage(features, device=device)
        self.ranker = Ranker(config, self.embeddings, len(features.numbers), len(loss_weights))
        self.loss = MaskedBCE(list(loss_weights.values()))

    def forward(self, batch: Batch) -> Outputs:
        embedded = self.embeddings(batch)
        return self.dense(batch, embedded)

    def dense(self, batch: Batch, embedded: Embedded) -> Outputs:
        logits = self.ranker(embedded, batch.dense, batch.sequence_lengths)
        total, per_task = self.loss(logits, batch.labels)
        return Outputs(total, logits, per_task)
