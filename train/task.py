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
        *,
        cold_weight: float = 1.0,
        new_user_max_views: int = 10,
    ) -> None:
        """cold_weight: weight in the loss of rows with `user_views` of at most `new_user_max_views`; others weigh 1."""
        super().__init__()
        self.embeddings = EmbeddingStage(features, device=device)
        self.ranker = Ranker(config, self.embeddings, len(features.numbers), len(loss_weights))
        self.loss = MaskedBCE(list(loss_weights.values()))
        self.cold_weight, self.new_user_max_views = cold_weight, new_user_max_views

    def forward(self, batch: Batch) -> Outputs:
        embedded = self.embeddings(batch)
        return self.dense(batch, embedded)

    def dense(self, batch: Batch, embedded: Embedded) -> Outputs:
        logits = self.ranker(embedded, batch.dense, batch.sequence_lengths)
        total, per_task = self.loss(logits, batch.labels, self._row_weights(batch))
        return Outputs(total, logits, per_task)

    def _row_weights(self, batch: Batch) -> Tensor | None:
        """float32 [B]; None where all rows weigh 1."""
        if self.cold_weight == 1.0:
            return None
        cold = batch.keys["user_views"] <= self.new_user_max_views
        return torch.where(cold, self.cold_weight, 1.0).to(batch.labels.device)
