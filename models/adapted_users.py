"""The ID embeddings of users with few events, adapted to these events (MetaCF), in the place of those in the table.

B batch, L sequence length, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coldrank.models.embeddings import fixed_features
from coldrank.models.features import Feature, FeatureSet
from coldrank.modules import MetaCF

POOL = 64  # items that are taken for negatives at a time


class AdaptedUsers(nn.Module):
    """What a model reads of a user with at most `max_views` events: p_u^K for the row of the user table. Scriptable:
    what training and serving share.

    user, items: the features of the user's id and of the history's item ids, whose tables are equally wide. signal: the
    column of the history's signals that tells a positive event from a negative one; '': every event is positive, and
    `negatives` times its weight goes to items of the `pool` that are not in the history. fraction: of the embedding
    that is adapted; 0 leaves the table's bit for bit.

    pool: vectors of items, [P, D]; pool_rows: their rows, int64 [P], -1 in empty places. Without negatives P is 0.

    Raises ValueError, naming the field, for features that leave no room for it.
    """

    pool: Tensor
    pool_rows: Tensor

    def __init__(
        self,
        features: FeatureSet,
        metacf: MetaCF,
        *,
        user: str,
        items: str,
        signal: str,
        max_views: int,
        fraction: float,
        negatives: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= fraction <= 1 or max_views < 0:
            raise ValueError(f"fraction={fraction} must be in 0..1, max_views={max_views} not below 0")
        if negatives < 0 or (signal and negatives):
            raise ValueError(f"negatives={negatives}: must not be below 0, and is for a history without signals")
        if user not in [f.name for f in fixed_features(features) if f.kind == "id" and not f.many]:
            raise ValueError(f"user={user!r}: no feature of one id outside sequences has this name")
        histories = [f for f in features.sparse if f.name == items and f.role == "sequence" and f.kind == "id"]
        if not histories:
            raise ValueError(f"items={items!r}: no id feature of a sequence has this name")
        self.sequence = histories[0].sequence
        aligned = features.sequences[self.sequence]
        self.user, self.items = user, items
        if signal:
            signals = [f for f in aligned if signal in f.columns]
            if not signals:
                raise ValueError(
                    f"signal={signal!r}: not a signal of sequence {self.sequence!r}, which has {signals_of(aligned)}"
                )
            self.codes = signals[0].name
            self.power = 3 ** (len(signals[0].columns) - 1 - signals[0].columns.index(signal))
        else:
            if features.table(histories[0].table).reads != 1:
                raise ValueError(f"items={items!r}: without a signal its table must read one row for an id")
            self.codes, self.power = items, 0
        places = POOL if negatives else 0
        self.register_buffer("pool", torch.zeros(places, metacf.dim), persistent=bool(places))
        self.register_buffer("pool_rows", torch.full((places,), -1), persistent=bool(places))
        self.metacf = metacf
        self.max_views, self.fraction, self.negatives = max_views, fraction, negatives

    def forward(self, user: Tensor, items: Tensor, codes: Tensor, views: Tensor, born: Tensor | None = None) -> Tensor:
        """user: float [B, D], embeddings of the feature `self.user`. items: float [B, L, D], of the feature
        `self.items`. codes: int64 [B, L], of the feature `self.codes`, -1 where there is no event: joint states of its
        signals, or rows of items. views: int64 [B], events of the user so far. born: bool [B, P], which items of the
        pool there are before the event (None: all). -> the users' embeddings, adapted, [B, D]."""
        known = codes >= 0
        positive = known
        if self.power > 0:
            signal = torch.div(codes, self.power, rounding_mode="floor") % 3 - 1
            known, positive = known & (signal >= 0), signal > 0
        labels, weights = positive.to(user.dtype), known.to(user.dtype)
        if self.negatives > 0:
            free = (self.pool_rows >= 0) & ~(codes.unsqueeze(2) == self.pool_rows).any(1)
            if born is not None:
                free = free & born
            share = free.to(user.dtype)
            share = share * self.negatives * weights.sum(1, keepdim=True) / share.sum(1, keepdim=True).clamp(min=1.0)
            items = torch.cat([items, self.pool.expand(items.shape[0], -1, -1)], 1)
            labels, weights = torch.cat([labels, torch.zeros_like(share)], 1), torch.cat([weights, share], 1)
        p = self.metacf(items, labels, weights)
        share_adapted = (views <= self.max_views).to(user.dtype) * self.fraction
        return torch.lerp(user, p, share_adapted.unsqueeze(1))


def signals_of(aligned: Sequence[Feature]) -> list[str]:
    """The signals of a sequence's features."""
    return sorted({column for f in aligned for column in f.columns})


def width(features: FeatureSet, user: str, items: str) -> int:
    """The common width of both features' tables. ValueError where there is none."""
    widths = {f.name: features.dim(f) for f in features.sparse if f.name in (user, items)}
    if len(set(widths.values())) != 1 or len(widths) != 2:
        raise ValueError(
            f"user={user!r} and items={items!r} must be two features with tables of one width, not {widths}"
        )
    return next(iter(widths.values()))
