"""The two-tower retrieval model (PAM, section 4.1): user and item each through a tower of their own, scores by inner
product.

B batch, U users, D width, N sets of weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from coldrank.models.batch import Batch, SampleView
from coldrank.models.component import Widths
from coldrank.models.embeddings import Embedded, fixed_features
from coldrank.models.features import Feature, FeatureSet
from coldrank.models.heads.head import Head
from coldrank.models.heads.heads import Heads
from coldrank.models.item_frequency import ItemFrequency
from coldrank.models.model import Model, ModelModule, Outputs, Vectors
from coldrank.modules.contrast import log_share, share_loss, unit


@dataclass(kw_only=True, slots=True)
class TwoTower(Model):
    """The towers' sizes, and the softmax that trains them."""

    retrieves: ClassVar[bool] = True
    compares_rows: ClassVar[bool] = True
    widths: Widths = (16, 8)
    """Of the towers' layers; the last is linear and scaled to length 1."""
    temperature: PositiveFloat = 0.07
    """Of the softmax over a batch."""
    candidates: Literal["users", "items"] = "users"
    """What the softmax is over. users: of an item, the users of the batch's rows (PAM, Eq. 6 and 7). items: of a user,
    the items of the batch's rows; rows of label 1 alone teach, and their own item, met again, is left out."""
    log_q: bool = False
    """Of candidates=items: whether the log of an item's share of the stream's rows is taken from its scores, so that
    popular items, which are in more batches, are not held down (Yi et al., 2019)."""
    log_q_decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """What a row weighs in that share, a step later."""
    log_q_buckets: PositiveInt = 1 << 20
    """Items are counted by their hashed ids, so many."""
    same_user: bool = True
    """Of candidates=users: whether the same user, met again in the batch, counts as another candidate, as in PAM's
    Eq. 6."""

    def build(self, features: FeatureSet, tasks: int) -> "TwoTowerModule":
        return TwoTowerModule(self, features)

    def problem(self, features: FeatureSet, tasks: Mapping[str, Head], *, sequences: bool = False) -> str:
        """A tower reads the mean of a history, which is a many-valued id, and no sequence."""
        if len(tasks) != 1:
            return f"model='two_tower' learns one task; there are {len(tasks)}"
        name, head = next(iter(tasks.items()))
        if not head.is_binary:
            wanted = "model='two_tower' learns whether a user meets an item"
            return f"{wanted}; tasks.{name} is {head.kind()}, should be binary"
        if features.sequences and not sequences:
            name = next(iter(features.sequences))
            return f"sequence {name!r}: the towers read a history as an id with many=True, not as a sequence"
        for f in features.features:
            if any(_is_of(part, "item") != _is_of(f, "item") for part in features.parts(f)):
                return f"feature {f.name!r} crosses what one tower does not read; its role and its parts' must be alike"
        for side in Sides._fields:
            if not any(_is_of(f, side) for f in fixed_features(features)):
                return f"no embedded feature for the {side}'s tower"
        return ""

    def idle(self, features: FeatureSet) -> list[tuple[bool, tuple[str, ...], str]]:
        items = self.candidates == "items"
        return [
            (not items, ("log_q",), "with model.candidates='users'"),
            (not self.log_q, ("log_q_decay", "log_q_buckets"), "with model.log_q=False"),
            (items, ("same_user",), "with model.candidates='items'"),
        ]


class Sides(NamedTuple):
    """What the towers read: user [B, Du], item [B, Di]."""

    user: Tensor
    item: Tensor


class Tower(nn.Module):
    """relu(W x + b), stacked; the last layer is linear, and its output has length 1."""

    def __init__(self, in_dim: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (in_dim, *widths)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, widths, strict=False))

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """x: [B, in_dim] -> [B, D]; with the weights of N groups, name -> [N, ...], and x [B, in_dim] or, rows of its
        own for every group, [N, B, in_dim] -> [N, B, D]."""
        return unit(self.last(self.hidden(x, weights), weights))

    def hidden(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """What the last layer reads."""
        for i in range(len(self.layers) - 1):
            x = torch.relu(self._layer(i, x, weights))
        return x

    def last(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The last layer, before it is scaled."""
        return self._layer(len(self.layers) - 1, x, weights)

    def _layer(self, i: int, x: Tensor, weights: Mapping[str, Tensor] | None) -> Tensor:
        if weights is None:
            y: Tensor = self.layers[i](x)
            return y
        weight, bias = weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"]
        if weight.dim() == 2:
            return torch.addmm(bias, x, weight.mT)
        return torch.baddbmm(bias.unsqueeze(1), x.expand(len(weight), *x.shape[-2:]), weight.mT)


class TwoTowerModule(ModelModule):
    """Embedded features -> vectors of length 1. Features of role `item` go to the item's tower, all others to the
    user's."""

    user_dense: Tensor
    item_dense: Tensor

    def __init__(self, config: TwoTower, features: FeatureSet) -> None:
        super().__init__()
        self.config, self.temperature = config, config.temperature
        fixed = fixed_features(features)
        # Of each side, the features and the columns of the numbers.
        self.features = {side: [f.name for f in fixed if _is_of(f, side)] for side in Sides._fields}
        for side in Sides._fields:
            columns = [i for i, f in enumerate(features.numbers) if _is_of(f, side)]
            self.register_buffer(f"{side}_dense", torch.tensor(columns, dtype=torch.int64), persistent=False)
        # Feature of the item -> its columns in what the item's tower reads.
        self.item_columns: dict[str, slice] = {}
        start = 0
        for f in fixed:
            if f.role == "item":
                self.item_columns[f.name] = slice(start, start + features.dim(f))
                start += features.dim(f)
        widths = {f.name: features.dim(f) for f in fixed}
        numbers = {"user": len(self.user_dense), "item": len(self.item_dense)}
        sizes = {side: sum(widths[n] for n in self.features[side]) + numbers[side] for side in Sides._fields}
        self.towers = nn.ModuleDict({side: Tower(sizes[side], config.widths) for side in Sides._fields})
        self.frequency = ItemFrequency(config.log_q_buckets, config.log_q_decay) if config.log_q else None

    def sides(self, embedded: Embedded, dense: Tensor) -> Sides:
        """dense: [B, F]."""
        user, item = (
            torch.cat([*(embedded[name] for name in self.features[side]), dense.index_select(1, columns)], 1)
            for side, columns in (("user", self.user_dense), ("item", self.item_dense))
        )
        return Sides(user, item)

    def forward(self, embedded: Embedded, batch: SampleView) -> Tensor:
        """Scores of each row's own user and item over the temperature, [B, 1]."""
        user, item = self.vectors(self.sides(embedded, batch.dense))
        return (user * item).sum(1, keepdim=True) / self.config.temperature

    def outputs(
        self, embedded: Embedded, batch: Batch, heads: Heads, row_weights: Tensor | None, *, bf16: bool
    ) -> Outputs:
        """In-batch softmax over the users, or the items, of the rank's batch; the loss is its mean over the rows of all
        ranks."""
        user, item = self.vectors(self.sides(embedded, batch.dense))
        rows = torch.arange(len(batch), device=item.device)
        scaled = item / self.config.temperature
        if self.config.candidates == "items":
            losses = self._over_items(user, item, batch)
        else:
            ids = self.ids(batch.keys["user_id"].to(item.device))
            losses = share_loss(log_share(scaled, user, rows, ids), batch.labels[:, 0])
        known = (~torch.isnan(batch.labels)).sum(0).to(losses.dtype)
        return Outputs(
            losses.sum() / batch.mean_size,
            (scaled * user).sum(1, keepdim=True),
            (losses.detach().sum().unsqueeze(0), known),
            Vectors(item.detach(), user.detach().unsqueeze(0), torch.zeros_like(rows)),
        )

    def sees(self, batch: Batch) -> None:
        if self.frequency is not None:
            self.frequency.see(batch.keys["item_id"], batch.sizes)

    def _over_items(self, user: Tensor, item: Tensor, batch: Batch) -> Tensor:
        """Yi et al., Eq. 3 to 5: -y log p of each row, [B], where p is the share of its own item in the softmax of
        u . i / temperature - log q over the items of the batch, and q an item's share of the stream."""
        ids = batch.keys["item_id"].to(item.device)
        asking = user / self.config.temperature
        if self.frequency is not None:
            # As one more dimension, so that it is the score's.
            asking = torch.cat([asking, torch.ones_like(asking[:, :1])], 1)
            item = torch.cat([item, -self.frequency.log_share(ids).unsqueeze(1)], 1)
        log_p = log_share(asking, item, torch.arange(len(ids), device=item.device), ids)
        return torch.where(batch.labels[:, 0] == 1, -log_p, 0.0)

    def vectors(self, sides: Sides) -> tuple[Tensor, Tensor]:
        """Vectors of the users and of the items, [B, D] each."""
        user: Tensor = self.towers["user"](sides.user)
        item: Tensor = self.towers["item"](sides.item)
        return user, item

    def ids(self, users: Tensor) -> Tensor | None:
        """What tells a row's own user among the candidates, as `log_share` takes it; None where these count as others.

        users: ids, int64 [B]."""
        return None if self.config.same_user else users


def _is_of(feature: Feature, side: str) -> bool:
    return (feature.role == "item") == (side == "item")
