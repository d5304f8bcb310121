"""Losses over labels that may be unknown. B batch, T tasks."""

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_bce(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy over the known labels.

    logits: [B, T]. labels: [B, T] in {0, 1}, NaN where unknown. weights: [T].
    Returns the loss, sum over tasks of weight * (sum over known labels) / B, and the mean over the known labels per task
    [T], detached (NaN where none is known). Dividing by B rather than by the number of known labels gives every label the
    same weight, however many of its batch are known, and lets the mean over ranks be the global loss.
    """
    known = ~torch.isnan(labels)
    losses = F.binary_cross_entropy_with_logits(logits, torch.where(known, labels, 0.0), reduction="none")
    sums = torch.where(known, losses, 0.0).sum(0)
    return (sums * weights).sum() / labels.shape[0], sums.detach() / known.sum(0)
