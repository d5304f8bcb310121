"""PAM's tasks on the two-tower model: losses and vectors of rows by the weights of their tasks.

B rows of a batch, R of them, N tasks, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from coldrank.models.batch import Batch
from coldrank.models.two_tower import Sides, Tower, TwoTower, Vectors
from coldrank.modules.contrast import log_share, share_loss
from coldrank.modules.inner_loop import Weights
from coldrank.modules.pam import Rows


@dataclass(frozen=True, slots=True)
class TowerRows:
    """A batch before the towers. Weights are those of the model by name, stacked over the tasks, [N, ...]."""

    model: TwoTower
    sides: Sides
    labels: Tensor
    others: Tensor | None

    @classmethod
    def of(cls, model: TwoTower, batch: Batch, sides: Sides) -> "TowerRows":
        """sides: of the whole batch: all its users are candidates for every row."""
        others = model.others(batch.keys["user_id"].to(sides.item.device))
        return cls(model, sides, batch.labels[:, 0], others)

    def losses(self, weights: Weights, rows: Rows, among: Tensor | None = None) -> Tensor:
        """Eq. 7 of each of the rows, [R], item and candidates by the weights of the row's task.

        among: rows whose users are the candidates, int64 [U], the rows themselves among them; None: all of the batch."""
        users = self._tower("user")(self.sides.user if among is None else self.sides.user[among], _of(weights, "user"))
        items = self._tower("item")(self.sides.item[rows.index], _of(weights, "item"))
        items = items[rows.task, torch.arange(len(rows.task), device=items.device)] / self.model.config.temperature
        parts = zip(items.split(rows.counts), users, strict=True)
        scores = torch.cat([own @ candidates.mT for own, candidates in parts])
        own, others = rows.index, None if self.others is None else self.others[rows.index]
        if among is not None:
            own = torch.empty_like(self.labels, dtype=torch.int64).index_copy(0, among, _count(among))[rows.index]
            others = None if others is None else others[:, among]
        return share_loss(log_share(scores, own, others), self.labels[rows.index])

    def vectors(self, weights: Weights, task: Tensor) -> Vectors:
        """task: of every row of the batch, int64 [B]."""
        users = self._tower("user")(self.sides.user, _of(weights, "user"))
        items = self._tower("item")(self.sides.item, _of(weights, "item"))
        return Vectors(items[task, torch.arange(len(task), device=task.device)], users, task)

    def scores(self, vectors: Vectors) -> Tensor:
        """Score of every row's own user and item over the temperature, [B]."""
        own = vectors.users[vectors.task, torch.arange(len(vectors.task), device=vectors.task.device)]
        return (own * vectors.item).sum(1) / self.model.config.temperature

    def _tower(self, side: str) -> Tower:
        tower = self.model.towers[side]
        assert isinstance(tower, Tower)
        return tower


def _count(rows: Tensor) -> Tensor:
    return torch.arange(len(rows), device=rows.device)


def _of(weights: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    prefix = f"towers.{side}."
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
