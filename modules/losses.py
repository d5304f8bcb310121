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

    def forward(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """logits: [B, T]. labels: [B, T] in {0, 1}, NaN where unknown.

        Returns the loss, sum over tasks of weight * (sum over known labels) / B, and per task the sum over the known labels
        and their number, [T] each, detached. Dividing by B rather than by the number of known labels gives every label the
        same weight, however many of its batch are known, and lets the mean over ranks be the global loss.
        """
        known = ~torch.isnan(labels)
        losses = F.binary_cross_entropy_with_logits(logits, torch.where(known, labels, 0.0), reduction="none")
        sums = torch.where(known, losses, 0.0).sum(0)
        return (sums * self.weights).sum() / labels.shape[0], (sums.detach(), known.sum(0).to(sums.dtype))
