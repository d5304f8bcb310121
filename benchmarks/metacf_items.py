"""Item vectors from the ratings of the users for pre-training: matrix factorisation by gradients, and iALS.

U users, N items, D width.
"""

from typing import NamedTuple

import torch
from metacf_data import RatingLog
from torch import Tensor
from torch.nn import functional as F


class Factors(NamedTuple):
    """Vectors of matrix factorisation."""

    users: Tensor
    """Those of the users p, float32 [U, D]; with a bias of the items, [U, D + 1] and the last is 1."""
    items: Tensor
    """Those of the items q, float32 [N, D]; with a bias, [N, D + 1] and the last is the bias."""


def factorise(
    log: RatingLog,
    loss: str,
    *,
    dim: int,
    epochs: int,
    l2: float,
    seed: int,
    lr: float = 2e-3,
    bias: bool = False,
    negatives: int = 0,
) -> Factors:
    """The vectors of p_u . q_v (+ b_v). Adam, batches of 4,096 ratings.

    loss: `bce`, the paper's Eq. 2 with random negatives drawn in every epoch; or `bpr`, the pairs of Rendle et al.
        (2009).
    l2: lambda, per example. negatives: per positive; 0: the paper's 3, and 1 of BPR's pairs.
    """
    torch.manual_seed(seed)
    users, items = torch.from_numpy(log.users), torch.from_numpy(log.items)
    rated = log.matrix().bool()
    p = (0.1 * torch.randn(len(log.starts) - 1, dim)).requires_grad_()
    q = (0.1 * torch.randn(log.item_count, dim)).requires_grad_()
    b = torch.zeros(log.item_count, 1, requires_grad=bias)
    optimizer = torch.optim.Adam([p, q, b] if bias else [p, q], lr=lr)
    negatives = negatives or (3 if loss == "bce" else 1)
    for _ in range(epochs):
        for batch in torch.randperm(len(items)).split(4096):
            u, i, other = users[batch], items[batch], torch.randint(0, log.item_count, (negatives, len(batch)))
            other = torch.where(rated[u, other], torch.randint(0, log.item_count, other.shape), other)
            # The gradient of `embedding` adds the same numbers in the same order as that of p[u], in half the time.
            pu, qi, qj = F.embedding(u, p), F.embedding(i, q), F.embedding(other, q)
            good, bad = (pu * qi).sum(-1), (pu * qj).sum(-1)
            if bias:
                good, bad = good + F.embedding(i, b).squeeze(-1), bad + F.embedding(other, b).squeeze(-1)
            fit = -F.logsigmoid(good - bad).sum() if loss == "bpr" else F.softplus(-good).sum() + F.softplus(bad).sum()
            decay = l2 * (pu.square().sum() + qi.square().sum() + qj.square().sum())
            optimizer.zero_grad()
            ((fit + decay) / len(batch)).backward()
            optimizer.step()
    if bias:
        return Factors(torch.cat([p, torch.ones(len(p), 1)], 1).detach(), torch.cat([q, b], 1).detach())
    return Factors(p.detach(), q.detach())


def ials(ratings: Tensor, *, dim: int, alpha: float, l2: float, sweeps: int = 12, seed: int = 0) -> Tensor:
    """Item vectors, float32 [N, D], by alternating least squares on implicit feedback.

    The loss (Hu et al., 2008, as Rendle et al. write it in 2021): the sum over ratings of (1 - p.q)^2, alpha times the
    sum over all pairs of (p.q)^2, and l2 of each vector by the weight of its pairs.
    ratings: 0 or 1, float32 [U, N].
    """
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(ratings.shape[1], dim, generator=generator) * 0.1 / dim**0.5
    rows, columns = ratings.to_sparse(), ratings.T.to_sparse()
    for _ in range(sweeps):
        p = fold_in(rows, q, alpha, l2)
        q = fold_in(columns, p, alpha, l2)
    return q


def fold_in(ratings: Tensor, q: Tensor, alpha: float, l2: float) -> Tensor:
    """The best vectors of users, float32 [U, D], given those of the items.

    (Q'Q over the rated + alpha Q'Q + reg I) p = Q' 1, with reg = l2 (number rated + alpha N).
    ratings: float32 [U, N], sparse or not. q: float32 [N, D].
    """
    dim = q.shape[1]
    pairs = (q.unsqueeze(2) * q.unsqueeze(1)).flatten(1)
    weights = (ratings @ q.new_ones(len(q), 1)).squeeze(1) + alpha * len(q)
    left = (
        (ratings @ pairs).view(-1, dim, dim) + alpha * (q.T @ q) + (l2 * weights).view(-1, 1, 1) * torch.eye(dim).to(q)
    )
    # As `solve` lays it out, the products of the next call take five times as long.
    return torch.linalg.solve(left, ratings @ q).contiguous()


def ease(ratings: Tensor, l2: float) -> Tensor:
    """Item-to-item weights, float32 [N, N], of the shallow autoencoder (Steck, 2019).

    B = I - P / diag(P), P = (X'X + l2 I)^-1. ratings: X, float32 [U, N].
    """
    inverse = torch.linalg.inv(ratings.T @ ratings + l2 * torch.eye(ratings.shape[1]))
    weights = -inverse / inverse.diagonal()
    return weights.fill_diagonal_(0.0)
