"""ID embeddings as posterior modes: a Gaussian prior from the side features, the losses of the events so far.

n events, N items, T tasks, D width of the ID embedding, S of the side features.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """mean: [N, D]. precision: [N, D, D]."""

    mean: Tensor
    precision: Tensor


class Prior(NamedTuple):
    """Of an item with side features s: mean W [s, 1], covariance the same for all. weight: [S + 1, D]. covariance: [D,
    D]."""

    weight: Tensor
    covariance: Tensor

    def of(self, side: Tensor, strength: float) -> Gaussian:
        """The prior of items with side features [N, S]; strength: what the precision is multiplied by."""
        precision = strength * torch.linalg.inv(self.covariance)
        return Gaussian(_with_one(side) @ self.weight, precision.expand(len(side), -1, -1))


def fit_prior(ids: Tensor, side: Tensor, ridge: float = 1.0) -> Prior:
    """Empirical Bayes: least squares of the trained ID embeddings [N, D] on the side features [N, S], ridge as a share
    of the features' mean square; the covariance is that of what is left."""
    x = _with_one(side)
    penalty = ridge * x.square().sum(0).mean() / len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    penalty[-1, -1] = 0.0
    weight = torch.linalg.solve(x.T @ x + penalty, x.T @ ids)
    rest = ids - x @ weight
    return Prior(weight, rest.T @ rest / len(x) + 1e-8 * torch.eye(ids.shape[1], dtype=x.dtype))


def fit_of_moments(moments: Tensor, dim: int, count: int, ridge: float = 1.0) -> tuple[Tensor, Tensor]:
    """`fit_prior` of sums that a stream has kept, with the variance of each element alone: weight [S + 1, D], variance
    [D], unbiased.

    moments: sum of w z z^T over events of trained items, z = [s, 1, v] with weights w, [S + 1 + D, S + 1 + D].
    count: N, above S + 1.
    """
    size = len(moments) - dim
    mean = moments / moments[size - 1, size - 1]
    xx, xv, vv = mean[:size, :size], mean[:size, size:], mean[size:, size:].diagonal()
    penalty = ridge / count * xx.diagonal().mean() * torch.eye(size, dtype=xx.dtype, device=xx.device)
    penalty[-1, -1] = 0.0
    weight = torch.linalg.solve(xx + penalty, xv)
    rest = vv - 2 * (weight * xv).sum(0) + (weight * (xx @ weight)).sum(0)
    return weight, (rest * count / (count - size)).clamp(min=1e-8)


def curvature(slopes: Tensor, logits: Tensor, labels: Tensor, items: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Gradient [N, D] and Gauss-Newton matrix [N, D, D] of the summed logistic losses of each item's events.

    slopes: derivative of each event's logit by its item's ID embedding, [n, D]. logits, labels: [n]. items: int64 [n] <
    count.
    """
    p = torch.sigmoid(logits)
    return summed(slopes.unsqueeze(1), (p - labels).unsqueeze(1), (p * (1 - p)).unsqueeze(1), items, count)


def summed(slopes: Tensor, first: Tensor, second: Tensor, items: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Gradient [N, D] and Gauss-Newton matrix [N, D, D] of the summed losses of each item's events.

    slopes: derivative of each event's logits by its item's ID embedding, [n, T, D]. first, second: derivatives of the
    losses by the logits, [n, T] each. items: int64 [n] < count.
    """
    gradient = slopes.new_zeros(count, slopes.shape[2]).index_add(0, items, (first.unsqueeze(2) * slopes).sum(1))
    outer = (second.unsqueeze(2) * slopes).transpose(1, 2) @ slopes
    return gradient, slopes.new_zeros(count, *outer.shape[1:]).index_add(0, items, outer)


def newton_step(prior: Gaussian, ids: Tensor, gradient: Tensor, matrix: Tensor) -> Tensor:
    """One step towards the mode of prior times likelihood, from ids [N, D]."""
    pull = torch.einsum("nij,nj->ni", prior.precision, ids - prior.mean)
    return ids - torch.linalg.solve(prior.precision + matrix, gradient + pull)


def _with_one(side: Tensor) -> Tensor:
    return torch.cat([side, side.new_ones(len(side), 1)], 1)
