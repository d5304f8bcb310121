"""The in-batch softmax over users (InfoNCE; PAM, Eq. 6-7), for one set of weights or for those of several groups.

N groups, R rows (an item and the user who met it) in order of their groups, U candidate users, D width.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# As far as float32 can tell a probability from 1.
_EPS = 1e-7
# Scores held at a time: as many as a core's cache takes, which takes 0.6 of the time of all at once (docs/pam.md).
_CHUNK = 1 << 17
_KEPT = 1 << 22


def log_share(
    items: Tensor, users: Tensor, positive: Tensor, ids: Tensor | None = None, counts: Sequence[int] | None = None
) -> Tensor:
    """Log of Eq. 6: the share of a row's own user in the softmax of z_u . z_i over all candidates, [R].

    items: z_i over the temperature, [R, D]. users: z_u, [U, D]. positive: place of the row's own user among the
    candidates, int64 [R]. ids: of the candidates, int64 [U]: then the same user, met again, is left out of the row's
    softmax, its own place excepted. counts: rows of each group; then items are [N, M, D], of group n the first
    counts[n], and users [N, U, D]. Can be differentiated twice.
    """
    if counts is None:
        items, users, counts = items.unsqueeze(0), users.unsqueeze(0), [len(items)]
    log_p: Tensor = _LogShare.apply(items, users, positive, ids, counts)
    return log_p


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


class _Piece(NamedTuple):
    """Rows of one group. within: among its items; rows: among those of the chunk."""

    group: int
    within: slice
    rows: slice


class _Chunk(NamedTuple):
    """Some rows, and their pieces by groups."""

    rows: slice
    pieces: list[_Piece]


class _LogShare(torch.autograd.Function):
    """The log shares, [R]. Scores of more than `_CHUNK` pairs are held at no time; the shares of at most `_KEPT` pairs
    are kept for the gradients, which compute those of more again."""

    @staticmethod
    def forward(
        ctx: Any, items: Tensor, users: Tensor, positive: Tensor, ids: Tensor | None, counts: Sequence[int]
    ) -> Tensor:
        mine, total = items.new_empty(len(positive), 1), items.new_empty(len(positive), 1)
        wanted = any(ctx.needs_input_grad) and len(positive) * users.shape[1] <= _KEPT
        kept = items.new_empty(len(positive), users.shape[1]) if wanted else None
        for chunk in _chunks(counts, users):
            scores = _scores(chunk, items, users, positive, ids)
            torch.gather(scores, 1, positive[chunk.rows].unsqueeze(1), out=mine[chunk.rows])
            # Without the checks of `logsumexp`: the own score is finite.
            highest = scores.amax(1, keepdim=True)
            sums = scores.sub_(highest).exp_().sum(1, keepdim=True)
            torch.add(sums.log(), highest, out=total[chunk.rows])
            if kept is not None:
                torch.div(scores, sums, out=kept[chunk.rows])
        ctx.counts = counts
        ctx.save_for_backward(items, users, positive, ids, total, kept)
        return (mine - total).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_items, to_users = _Gradient.apply(gradients[0].unsqueeze(1), *ctx.saved_tensors, ctx.counts)
        return to_items, to_users, None, None, None


class _Gradient(torch.autograd.Function):
    """The gradient of the log shares by items and users, and its own."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
        """gradient: [R, 1]. given: what `_LogShare` saves, and the counts."""
        *saved, ctx.counts = given
        ctx.save_for_backward(gradient, *saved)
        items, users, positive, *_ = saved
        to_items, to_users = _zeros(items), _zeros(users)
        for chunk in _chunks(ctx.counts, users):
            weight = gradient[chunk.rows]
            by_score = _shares(chunk, *saved) * -weight
            by_score.scatter_add_(1, positive[chunk.rows].unsqueeze(1), weight)
            for n, within, rows in chunk.pieces:
                to_items[n, :, within].addmm_(users[n].mT, by_score[rows].mT)
                to_users[n].addmm_(items[n, within].mT, by_score[rows])
        return to_items.mT, to_users.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With q the change of the scores along `gradients`, p the shares and m = sum p q: of gradient . (q_positive
        - m)."""
        gradient, *saved = ctx.saved_tensors
        items, users, positive, *_ = saved
        along_items, along_users = gradients
        to_gradient = torch.empty_like(gradient)
        to_items, to_users = _zeros(items), _zeros(users)
        for chunk in _chunks(ctx.counts, users):
            place, weight = positive[chunk.rows].unsqueeze(1), gradient[chunk.rows]
            shares = _shares(chunk, *saved)
            change = torch.empty_like(shares)
            for n, within, rows in chunk.pieces:
                torch.mm(along_items[n, within], users[n].mT, out=change[rows])
                change[rows].addmm_(items[n, within], along_users[n].mT)
            mean = (shares * change).sum(1, keepdim=True)
            torch.sub(change.gather(1, place), mean, out=to_gradient[chunk.rows])
            shares = shares * -weight
            by_score = change.sub_(mean).mul_(shares)
            shares.scatter_add_(1, place, weight)
            for n, within, rows in chunk.pieces:
                to_items[n, :, within].addmm_(users[n].mT, by_score[rows].mT).addmm_(along_users[n].mT, shares[rows].mT)
                to_users[n].addmm_(items[n, within].mT, by_score[rows]).addmm_(along_items[n, within].mT, shares[rows])
        return to_gradient, to_items.mT, to_users.mT, *[None] * 5


def _chunks(counts: Sequence[int], users: Tensor) -> Iterator[_Chunk]:
    total = sum(counts)
    size = max(1, _CHUNK // max(1, users.shape[1])) if users.device.type == "cpu" else max(1, total)
    for start in range(0, total, size):
        end, first, pieces = min(start + size, total), 0, []
        for group, count in enumerate(counts):
            low, high = max(start, first), min(end, first + count)
            if low < high:
                pieces.append(_Piece(group, slice(low - first, high - first), slice(low - start, high - start)))
            first += count
        yield _Chunk(slice(start, end), pieces)


def _zeros(vectors: Tensor) -> Tensor:
    """[N, D, rows], for gradients of vectors [N, rows, D]: products are several times faster with the narrow side
    first."""
    return vectors.new_zeros(vectors.shape[0], vectors.shape[2], vectors.shape[1])


def _scores(chunk: _Chunk, items: Tensor, users: Tensor, positive: Tensor, ids: Tensor | None) -> Tensor:
    """[rows of the chunk, U]; those of candidates that are left out lie far below all others."""
    place = positive[chunk.rows].unsqueeze(1)
    if ids is None:
        scores = items.new_zeros(len(place), users.shape[1])
    else:
        scores = (ids[place] == ids).to(items.dtype).mul_(torch.finfo(items.dtype).min).scatter_(1, place, 0.0)
    for n, within, rows in chunk.pieces:
        scores[rows].addmm_(items[n, within], users[n].mT)
    return scores


def _shares(
    chunk: _Chunk,
    items: Tensor,
    users: Tensor,
    positive: Tensor,
    ids: Tensor | None,
    total: Tensor,
    kept: Tensor | None,
) -> Tensor:
    if kept is not None:
        return kept[chunk.rows]
    return _scores(chunk, items, users, positive, ids).sub_(total[chunk.rows]).exp_()
