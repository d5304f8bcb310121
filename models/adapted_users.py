"""The ID embeddings of users with few events, adapted to these events (MetaCF), in the place of those in the table.

B batch, L sequence length, D width.
"""

import torch
from torch import Tensor, nn

from coldrank.models.features import FeatureSet
from coldrank.modules import MetaCF


class AdaptedUsers(nn.Module):
    """What a model reads of a user with at most `max_views` events: p_u^K for the row of the user table. Scriptable: what
    training and serving share.

    user, items: the features of the user's id and of the history's item ids, whose tables are equally wide. signal: the column
    of the history's signals that tells a positive event from a negative one. fraction: of the embedding that is adapted;
    0 leaves the table's bit for bit.

    Raises ValueError, naming the field, for features that leave no room for it.
    """

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
    ) -> None:
        super().__init__()
        if not 0 <= fraction <= 1 or max_views < 0:
            raise ValueError(f"fraction={fraction} must be in 0..1, max_views={max_views} not below 0")
        static = [f for f in features.sparse if f.role not in ("sequence", "pc")]
        if user not in [f.name for f in static if f.kind == "id" and not f.many]:
            raise ValueError(f"user={user!r}: no feature of one id outside sequences has this name")
        before = static[: [f.name for f in static].index(user)]
        first = sum(features.dim(f) for f in before)
        self.user = (first, first + metacf.dim)
        found = [f for f in features.sparse if f.name == items and f.role == "sequence" and f.kind == "id"]
        if not found:
            raise ValueError(f"items={items!r}: no id feature of a sequence has this name")
        self.sequence = found[0].sequence
        aligned = features.sequences[self.sequence]
        first = sum(features.dim(f) for f in aligned[: aligned.index(found[0])])
        self.items = (first, first + metacf.dim)
        signals = [f for f in aligned if signal in f.columns]
        if not signals:
            columns = sorted({c for f in aligned for c in f.columns})
            raise ValueError(f"signal={signal!r}: not a signal of sequence {self.sequence!r}, which has {columns}")
        self.signals = signals[0].name
        self.power = 3 ** (len(signals[0].columns) - 1 - signals[0].columns.index(signal))
        self.metacf = metacf
        self.max_views, self.fraction = max_views, fraction

    def forward(self, static: Tensor, sequence: Tensor, codes: Tensor, views: Tensor) -> Tensor:
        """static: float [B, S], the embeddings outside sequences. sequence: float [B, L, E], of the sequence `self.sequence`. codes:
        int64 [B, L], joint states of its signals `self.signals`, -1 where there is no event. views: int64 [B], events of the user
        so far. -> static with the users' columns adapted, [B, S]."""
        signal = torch.div(codes, self.power, rounding_mode="floor") % 3 - 1
        known = (codes >= 0) & (signal >= 0)
        first, end = self.items
        p = self.metacf(sequence[:, :, first:end], (signal > 0).to(static.dtype), known.to(static.dtype))
        share = (views <= self.max_views).to(static.dtype) * self.fraction
        first, end = self.user
        user = torch.lerp(static[:, first:end], p, share.unsqueeze(1))
        return torch.cat([static[:, :first], user, static[:, end:]], 1)


def width(features: FeatureSet, user: str, items: str) -> int:
    """The common width of both features' tables. ValueError where there is none."""
    widths = {f.name: features.dim(f) for f in features.sparse if f.name in (user, items)}
    if len(set(widths.values())) != 1 or len(widths) != 2:
        raise ValueError(
            f"user={user!r} and items={items!r} must be two features with tables of one width, not {widths}"
        )
    return next(iter(widths.values()))
