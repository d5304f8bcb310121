"""Losses over labels that may be unknown. B batch, T tasks."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskedBCE(nn.Module):
    """Binary cross-entropy over the known labels. weights: one per task."""

    weights: Tensor

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    def forward(
        self, logits: Tensor, labels: Tensor, row_weights: Tensor | None = None, rows: float | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """logits: [B, T]. labels: [B, T] in {0, 1}, NaN where unknown. row_weights: float [B] (None: 1 each). rows: what the sum
        over rows is divided by (None: B).

        Returns the loss, sum over tasks of weight * (sum over known labels of row weight * loss) / rows, and per task the sum
        over the known labels and their number, [T] each, unweighted and detached. Dividing by rows rather than by the number of
        known labels or the sum of the row weights gives every label of a row the same weight, whatever else is in its batch.
        Of several ranks, `rows` is the mean number of their rows: the mean over ranks is then the loss of all rows together.
        A row of weight 2 counts as two equal rows.
        """
        known = ~torch.isnan(labels)
        losses = F.binary_cross_entropy_with_logits(logits, torch.where(known, labels, 0.0), reduction="none")
        losses = torch.where(known, losses, 0.0)
        sums = losses.sum(0)
        weighted = sums if row_weights is None else row_weights @ losses
        return (weighted * self.weights).sum() / (labels.shape[0] if rows is None else rows), (
            sums.detach(),
            known.sum(0).to(sums.dtype),
        )
