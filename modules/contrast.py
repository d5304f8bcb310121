"""The in-batch softmax over users (InfoNCE; PAM, Eq. 6-7).

R rows (an item and the user who met it), U candidate users, D width.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# As far as float32 can tell a probability from 1.
_EPS = 1e-7
# Scores held at a time: as many as a core's cache takes, which takes 0.6 of the time of all at once (docs/pam.md).
_CHUNK = 1 << 17


def log_share(items: Tensor, users: Tensor, own: Tensor, ids: Tensor | None = None) -> Tensor:
    """Log of Eq. 6: the share of a row's own user in the softmax of z_u . z_i over all candidates, [R].

    items: z_i over the temperature, [R, D]. users: z_u, [U, D]. own: place of the row's user among the candidates, int64 [R].
    ids: of the candidates, int64 [U]: then the same user, met again, is left out of the row's softmax, the own place excepted.
    Can be differentiated twice.
    """
    mine = (items * users[own]).sum(1)
    total: Tensor = _LogSum.apply(items, users, own, ids)
    return mine - total


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


class _LogSum(torch.autograd.Function):
    """Log of the sum of exp(z_u . z_i) over a row's candidates, [R]. Neither way holds the scores of more than `_CHUNK` pairs; the
    gradient computes them again."""

    @staticmethod
    def forward(ctx: Any, items: Tensor, users: Tensor, own: Tensor, ids: Tensor | None) -> Tensor:
        total = items.new_empty(len(items))
        for part in _parts(items, users):
            total[part] = _scores(items[part], users, own[part], ids).logsumexp(1)
        ctx.save_for_backward(items, users, own, ids, total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        items, users, own, ids, total = ctx.saved_tensors
        gradient = gradients[0].unsqueeze(1)
        if torch.is_grad_enabled():  # of which a gradient will be taken
            shares = _scores(items, users, own, ids).softmax(1) * gradient
            return shares @ users, shares.mT @ items, None, None
        to_items, to_users = torch.empty_like(items), torch.zeros_like(users)
        for part in _parts(items, users):
            shares = _scores(items[part], users, own[part], ids).sub_(total[part].unsqueeze(1)).exp_()
            shares.mul_(gradient[part])
            torch.mm(shares, users, out=to_items[part])
            to_users.addmm_(shares.mT, items[part])
        return to_items, to_users, None, None


def _parts(items: Tensor, users: Tensor) -> Iterator[slice]:
    size = max(1, _CHUNK // max(1, len(users))) if items.device.type == "cpu" else max(1, len(items))
    for first in range(0, len(items), size):
        yield slice(first, first + size)


def _scores(items: Tensor, users: Tensor, own: Tensor, ids: Tensor | None) -> Tensor:
    """[R, U]; -inf for candidates that are left out."""
    scores = items @ users.mT
    if ids is None:
        return scores
    others = (ids[own].unsqueeze(1) == ids).scatter_(1, own.unsqueeze(1), False)
    return scores.masked_fill(others, -torch.inf) if scores.requires_grad else scores.masked_fill_(others, -torch.inf)
