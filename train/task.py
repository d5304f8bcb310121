"""What one training step computes: embeddings, then everything dense."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded, EmbeddingStage
from coldrank.models.features import FeatureSet
from coldrank.models.heads.head import Head
from coldrank.models.heads.heads import Heads
from coldrank.models.model import Model, Outputs
from coldrank.models.projected import Projected
from coldrank.train.hooks.hook import HookModule, Rest
from coldrank.train.optim.micro_batches import by_micro_batches


class RankingTask(nn.Module):
    """Model, heads and hooks. `forward` is the embedding lookup and `dense`, in one call or by micro-batches."""

    def __init__(
        self,
        features: FeatureSet,
        model: Model,
        tasks: Mapping[str, Head],
        device: torch.device | None = None,
        *,
        cold_weight: float = 1.0,
        new_user_max_views: int = 10,
        accumulate: int = 1,
        bf16: bool = False,
        hooks: Mapping[str, HookModule] = MappingProxyType({}),
    ) -> None:
        """cold_weight: weight in the loss of rows with `user_views` of at most `new_user_max_views`; others weigh 1.
        accumulate, bf16: how the dense part is trained, as in TrainConfig; evaluation knows neither. hooks: by name, in
        order."""
        super().__init__()
        self.embeddings = EmbeddingStage(features, device=device)
        self.projected = Projected(features)
        self.ranker = model.build(features, len(tasks))
        self.heads = Heads(tasks)
        self.by_rows = not model.compares_rows
        self.cold_weight, self.new_user_max_views = cold_weight, new_user_max_views
        self.accumulate, self.bf16 = accumulate, bf16
        self.hooks = nn.ModuleDict(dict(hooks))

    def forward(self, batch: Batch) -> Outputs:
        if isinstance(batch, fx.Proxy):
            # TorchRec's pipeline traces which tables are read and from what of the batch; the rest is none of its
            # business.
            traced: Any = self.embeddings.read(batch)
            return cast(Outputs, traced)
        learns = self.training and torch.is_grad_enabled()
        if learns:
            self.ranker.sees(batch)
        embedded = self.embed(batch)
        for hook in self.in_order:
            embedded = _same_features(hook, embedded, hook.embed(batch, embedded))
        if self.accumulate == 1 or not learns:
            return self.dense(batch, embedded)
        before = ("embeddings.", "projected.")
        weights = [p for name, p in self.named_parameters() if not name.startswith(before)]
        return by_micro_batches(self.dense, batch, embedded, weights, self.accumulate)

    def embed(self, batch: Batch) -> Embedded:
        """What is read of the features, before any hook."""
        embedded: Embedded = self.projected(self.embeddings(batch), batch.floats)
        return embedded

    @property
    def in_order(self) -> list[HookModule]:
        """The hooks."""
        return cast(list[HookModule], list(self.hooks.values()))

    def dense(self, batch: Batch, embedded: Embedded) -> Outputs:
        """Everything after the lookup: the hooks, and within them model and loss."""
        rank = lambda batch, embedded, side: self.rank(batch, embedded)
        return Rest(self.ranker, self.heads, self.in_order, rank, by_rows=self.by_rows)(batch, embedded)

    def rank(self, batch: Batch, embedded: Embedded) -> Outputs:
        """Model and loss."""
        bf16 = self.bf16 and self.training
        return self.ranker.outputs(embedded, batch, self.heads, self._row_weights(batch), bf16=bf16)

    def _row_weights(self, batch: Batch) -> Tensor | None:
        """float32 [B], those of the samples times those of new users; None where all rows weigh 1."""
        if self.cold_weight == 1.0:
            return batch.weights
        cold = batch.keys["user_views"] <= self.new_user_max_views
        weights = torch.where(cold, self.cold_weight, 1.0).to(batch.labels.device)
        return weights if batch.weights is None else weights * batch.weights


def _same_features(hook: HookModule, before: Embedded, after: Embedded) -> Embedded:
    """What a hook has made of the embeddings; raises ValueError where it is of other features than there are, which
    nothing would read."""
    if differs := sorted(before.keys() ^ after.keys()):
        raise ValueError(
            f"{type(hook).__name__}.embed: {differs[0]!r}: give the features that it was given, and no other"
        )
    return after
