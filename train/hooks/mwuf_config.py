"""The settings of MWUF."""

from dataclasses import dataclass
from typing import Literal

from coldrank.models.features import Feature, FeatureSet


@dataclass(kw_only=True, slots=True)
class MwufConfig:
    """While an item has at most `max_views` views, as `cohorts.new_item_max_views` counts them, its warm ID embedding is scored with (docs/mwuf.md).

    mode: joint: the model trains as it would without, the networks beside it. warm_up: the model, from `train.warm_start`, is
    frozen; the ID embeddings of cold items and the networks train.
    item, user: the features of the item's id and of what a user's embedding is made of. users: of an item's first views, so many
    users are remembered, each with an embedding: rows of the item's table x users x width floats on every rank.
    hidden: width of the two networks. lr_scale: their learning rate over that of the other dense parameters.
    warm_every: of the cold rows, one in so many trains the two networks, its gradient so many times as large.
    common_init: an item that is read for the first time begins with the mean of the old items' ID embeddings, those with more
    than `max_views` views, as it was at the last multiple of `refresh` steps.
    """

    mode: Literal["joint", "warm_up"] = "joint"
    item: str = "item_id"
    user: tuple[str, ...] = ("user_id",)
    max_views: int = 50
    users: int = 20
    hidden: int = 16
    lr_scale: float = 1.0
    warm_every: int = 3
    common_init: bool = True
    refresh: int = 100

    def side(self, features: FeatureSet) -> list[Feature]:
        """Embedded features of the item beside its id. Raises ValueError that names a field for settings that cannot work."""
        fixed = {f.name: f for f in features.sparse if f.role not in ("sequence", "pc")}
        for name in (self.item, *self.user):
            if name not in fixed:
                raise ValueError(f"{name!r} is no embedded feature outside sequences; there are {', '.join(fixed)}")
        item = fixed[self.item]
        if item.kind != "id" or item.many or features.table(item.table).reads != 1:
            raise ValueError(f"mwuf.item={self.item!r}: must be one id with one row")
        if self.max_views < 0:
            raise ValueError(f"mwuf.max_views={self.max_views}: must not be below 0")
        for field in ("users", "hidden", "lr_scale", "warm_every", "refresh"):
            if getattr(self, field) <= 0:
                raise ValueError(f"mwuf.{field}={getattr(self, field)}: must be above 0")
        found = [f for f in fixed.values() if f.role == "item" and f.name != self.item]
        if not found or not self.user:
            what = "mwuf.user=[]: name a feature" if found else "mwuf scales by embedded features of role 'item'; none"
            raise ValueError(what)
        return found
