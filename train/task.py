"""What one training step computes: embeddings, then everything dense."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, fx, nn

from coldrank.models.backbones import make_ranker
from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded, EmbeddingStage
from coldrank.models.features import FeatureSet
from coldrank.models.ranker import RankerConfig
from coldrank.models.two_tower import TwoTower, TwoTowerConfig, Vectors
from coldrank.modules.contrast import log_share, share_loss
from coldrank.modules.losses import MaskedBCE
from coldrank.train.hooks.hook import Hook, Rest
from coldrank.train.optim.slices import in_slices
from coldrank.train.outputs import Outputs


class RankingTask(nn.Module):
    """Ranker, loss and hooks. `forward` is the embedding lookup and `dense`, in one call or in slices."""

    def __init__(
        self,
        features: FeatureSet,
        config: RankerConfig,
        loss_weights: dict[str, float],
        device: torch.device | None = None,
        *,
        cold_weight: float = 1.0,
        new_user_max_views: int = 10,
        accumulate: int = 1,
        bf16: bool = False,
        hooks: Mapping[str, Hook] = MappingProxyType({}),
        two_tower: TwoTowerConfig | None = None,
    ) -> None:
        """cold_weight: weight in the loss of rows with `user_views` of at most `new_user_max_views`; others weigh 1.
        accumulate, bf16: how the dense part is trained, as in TrainConfig; evaluation knows neither. hooks: by name, in order.
        two_tower: in the place of the ranker."""
        super().__init__()
        self.embeddings = EmbeddingStage(features, device=device)
        if two_tower is None:
            self.ranker = make_ranker(config, self.embeddings, len(features.numbers), len(loss_weights))
        else:
            self.ranker = TwoTower(two_tower, self.embeddings, features)
        self.loss = MaskedBCE(list(loss_weights.values()))
        self.cold_weight, self.new_user_max_views = cold_weight, new_user_max_views
        self.accumulate, self.bf16 = accumulate, bf16
        self.hooks = nn.ModuleDict(dict(hooks))

    def forward(self, batch: Batch) -> Outputs:
        if isinstance(batch, fx.Proxy):
            # TorchRec's pipeline traces which tables are read and from what of the batch; the rest is none of its business.
            traced: Outputs = self.embeddings.ebc(batch.lookup)
            return traced
        embedded = self.embeddings(batch)
        for hook in self.in_order:
            embedded = hook.embed(self, batch, embedded)
        if self.accumulate == 1 or not (self.training and torch.is_grad_enabled()):
            return self.dense(batch, embedded)
        weights = [p for name, p in self.named_parameters() if not name.startswith("embeddings.")]
        return in_slices(self.dense, batch, embedded, weights, self.accumulate)

    @property
    def in_order(self) -> list[Hook]:
        """The hooks."""
        return cast(list[Hook], list(self.hooks.values()))

    def dense(self, batch: Batch, embedded: Embedded) -> Outputs:
        """Everything after the lookup: the hooks, and within them ranker and loss."""
        return Rest(self, self.in_order, lambda batch, embedded, side: self.rank(batch, embedded))(batch, embedded)

    def rank(self, batch: Batch, embedded: Embedded) -> Outputs:
        """Ranker and loss. The loss is in float32, whatever the precision."""
        if isinstance(self.ranker, TwoTower):
            return retrieve(self.ranker, batch, embedded)
        with torch.autocast(batch.dense.device.type, torch.bfloat16, enabled=self.bf16 and self.training):
            logits = self.ranker(embedded, batch.dense, batch.sequence_lengths).float()
        total, per_task = self.loss(logits, batch.labels, self._row_weights(batch), batch.mean_size)
        return Outputs(total, logits, per_task)

    def _row_weights(self, batch: Batch) -> Tensor | None:
        """float32 [B]; None where all rows weigh 1."""
        if self.cold_weight == 1.0:
            return None
        cold = batch.keys["user_views"] <= self.new_user_max_views
        return torch.where(cold, self.cold_weight, 1.0).to(batch.labels.device)


def retrieve(model: TwoTower, batch: Batch, embedded: Embedded) -> Outputs:
    """Towers and in-batch softmax over the users of the rank's batch; the loss is its mean over the rows of all ranks."""
    user, item = model.vectors(model.sides(embedded, batch.dense))
    rows = torch.arange(len(batch), device=item.device)
    scaled = item / model.config.temperature
    ids = model.ids(batch.keys["user_id"].to(item.device))
    losses = share_loss(log_share(scaled, user, rows, ids), batch.labels[:, 0])
    known = (~torch.isnan(batch.labels)).sum(0).to(losses.dtype)
    return Outputs(
        losses.sum() / batch.mean_size,
        (scaled * user).sum(1, keepdim=True),
        (losses.detach().sum().unsqueeze(0), known),
        Vectors(item.detach(), user.detach().unsqueeze(0), torch.zeros_like(rows)),
    )
