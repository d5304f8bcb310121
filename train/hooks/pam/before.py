"""Support rows of the batch before: PAM as it serves, where groups are scored by what they were adapted to earlier.

M rows, N popularity groups, D width.
"""

import torch
from torch import Tensor, nn

from coldrank.models.batch import Batch
from coldrank.models.features import FeatureSet
from coldrank.models.two_tower import Sides, TwoTowerModule
from coldrank.modules.pam import RowsByGroup, support
from coldrank.train.distributed.ranks import of_all_ranks, world_size
from coldrank.train.hooks.hook import Settings
from coldrank.train.hooks.pam.config import PamConfig
from coldrank.train.hooks.pam.rows import TowerRows


class Before(nn.Module):
    """What the towers read of the rows, [M, Du] and [M, Di]; their labels [M, 1], ids of users and popularity groups,
    int64 [M], -1 where there is no row. M: `pam.support` of a batch. Equal on all ranks, each of which gives an equal
    part of the rows."""

    user: Tensor
    item: Tensor
    labels: Tensor
    ids: Tensor
    task: Tensor  # the group, by the name that checkpoints have

    def __init__(self, c: PamConfig, config: Settings, features: FeatureSet) -> None:
        super().__init__()
        self.groups, self.share, data = c.groups, c.support, config.data
        self.shared = data.global_batch_size > 0
        with torch.device("meta"):
            model = config.model.build(features, 1)
        assert isinstance(model, TwoTowerModule)
        rows = max(1, int(self.share * data.rank_batch(1)))
        widths = {side: model.towers[side].layers[0].in_features for side in Sides._fields}  # type: ignore[union-attr, index]
        for side, width in widths.items():
            self.register_buffer(side, torch.zeros(rows, width))
        self.register_buffer("labels", torch.zeros(rows, 1))
        self.register_buffer("ids", torch.zeros(rows, dtype=torch.int64))
        self.register_buffer("task", torch.full((rows,), -1))
        self._now: list[Tensor] | None = None

    def rows(self, model: TwoTowerModule) -> tuple[TowerRows, RowsByGroup]:
        """The rows, and those of them that there are."""
        sides = Sides(self.user, self.item)
        rows = TowerRows(model, sides, self.labels, model.ids(self.ids))
        return rows, RowsByGroup.of(self.task, self.groups, self.task >= 0)

    def note(self, rows: TowerRows, batch: Batch, group: Tensor) -> None:
        """Takes support rows of this batch, of each group its last. group: of its rows, [B]."""
        places = len(self.task) // world_size()
        # Of a batch of all ranks each has a part; of batches per rank there are several, for places of one.
        share = self.share if self.shared else self.share / world_size()
        last = support(group.flip(0), self.groups, share).flip(0).nonzero().squeeze(1)[:places]
        ids = batch.keys["user_id"].to(group.device)
        self._now = [x.detach()[last] for x in (rows.sides.user, rows.sides.item, rows.labels, ids, group)]

    def keep(self) -> None:
        """Puts what was noted, of all ranks, in the place of what was there."""
        if self._now is None:
            return
        places = len(self.task) // world_size()
        self.task.fill_(-1)
        for kept, now in zip((self.user, self.item, self.labels, self.ids, self.task), self._now, strict=True):
            mine = now.new_full((places, *now.shape[1:]), -1)
            mine[: len(now)] = now
            kept[: places * world_size()] = of_all_ranks(mine)
        self._now = None
