"""The in-batch softmax over users (InfoNCE; PAM, Eq. 6-7).

R rows (an item and the user who met it), U candidate users, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# As far as float32 can tell a probability from 1.
_EPS = 1e-7


def log_share(scores: Tensor, own: Tensor, not_others: Tensor | None = None) -> Tensor:
    """Log of Eq. 6: the share of a row's own user in the softmax over all candidates, [R].

    scores: z_u . z_i / temperature, [R, U]. own: place of the row's user among the candidates, int64 [R]. not_others: bool
    [R, U], candidates that are left out of the row's softmax, such as the same user met again; the own place is always in it.
    """
    mine = scores.gather(1, own.unsqueeze(1)).squeeze(1)
    if not_others is not None:
        scores = scores.masked_fill(not_others.scatter(1, own.unsqueeze(1), False), -torch.inf)
    return mine - scores.logsumexp(1)


def share_loss(log_p: Tensor, labels: Tensor) -> Tensor:
    """Eq. 7 per row: -y log p - (1 - y) log(1 - p), [R]; 0 where the label is unknown (NaN).

    log_p: [R], at most 0. labels: [R].
    """
    known = ~torch.isnan(labels)
    y = torch.where(known, labels, 0.0)
    p = log_p.exp().clamp(max=1 - _EPS)
    return torch.where(known, -y * log_p - (1 - y) * torch.log1p(-p), 0.0)


def unit(x: Tensor) -> Tensor:
    """Vectors of length 1 along the last dimension."""
    return F.normalize(x, dim=-1)
