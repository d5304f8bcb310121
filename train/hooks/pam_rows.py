"""PAM's tasks on a model: losses of rows by the weights of their tasks.

B rows of a batch, R of them, N tasks of PAM, T tasks of the model, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded
from coldrank.models.ranker import Ranker
from coldrank.models.two_tower import Sides, Tower, TwoTower, Vectors
from coldrank.modules.contrast import log_share, share_loss
from coldrank.modules.inner_loop import Weights
from coldrank.modules.pam import Rows


class TaskRows(Protocol):
    """A batch before the part that is adapted. Weights are those of the model by name, stacked over the tasks, [N, ...].

    labels: [B, T]."""

    labels: Tensor

    def losses(self, weights: Weights, rows: Rows, among: Tensor | None = None) -> Tensor:
        """Loss of each row and task of the model by the weights of the row's task, [R, T]; 0 where the label is unknown.

        among: rows whose users are the candidates of the two-tower model, int64 [U], the rows themselves among them; None: all
        of the batch."""

    def outputs(self, weights: Weights, task: Tensor) -> tuple[Tensor, Vectors | None]:
        """Logits [B, T] by the weights of each row's task, int64 [B]; of the two-tower model its vectors as well."""


@dataclass(slots=True)
class TowerRows:
    """A `TaskRows` of the two-tower model; users and items pass through the towers of the item's task. ids: as
    `TwoTower.ids` says."""

    model: TwoTower
    sides: Sides
    labels: Tensor
    ids: Tensor | None

    @classmethod
    def of(cls, model: TwoTower, batch: Batch, sides: Sides) -> "TowerRows":
        """sides: of the whole batch."""
        return cls(model, sides, batch.labels, model.ids(batch.keys["user_id"].to(sides.item.device)))

    def losses(self, weights: Weights, rows: Rows, among: Tensor | None = None) -> Tensor:
        """Eq. 7 of each of the rows."""
        users = self._tower("user")(self.sides.user if among is None else self.sides.user[among], _of(weights, "user"))
        items = self._tower("item")(self.sides.item[rows.index], _of(weights, "item"))
        items = items[rows.task, _count(rows.task)] / self.model.config.temperature
        own, ids = rows.index, self.ids
        if among is not None:
            own = rows.index.new_empty(len(self.labels)).index_copy(0, among, _count(among))[rows.index]
            ids = None if ids is None else ids[among]
        parts = zip(items.split(rows.counts), users, own.split(rows.counts), strict=True)
        log_p = torch.cat([log_share(mine, candidates, at, ids) for mine, candidates, at in parts])
        return share_loss(log_p, self.labels[rows.index, 0]).unsqueeze(1)

    def outputs(self, weights: Weights, task: Tensor) -> tuple[Tensor, Vectors | None]:
        """Scores of each row's own user and item over the temperature, and the vectors."""
        users = self._tower("user")(self.sides.user, _of(weights, "user"))
        items = self._tower("item")(self.sides.item, _of(weights, "item"))
        item, user = items[task, _count(task)], users[task, _count(task)]
        scores = (user * item).sum(1, keepdim=True) / self.model.config.temperature
        return scores, Vectors(item.detach(), users.detach(), task)

    def _tower(self, side: str) -> Tower:
        tower = self.model.towers[side]
        assert isinstance(tower, Tower)
        return tower


@dataclass(slots=True)
class RankerRows:
    """A `TaskRows` of the ranker, whose towers are adapted. x: what they read, [B, T, D]. pc: personalization code."""

    model: Ranker
    x: Tensor
    pc: Tensor
    labels: Tensor

    @classmethod
    def of(cls, model: Ranker, batch: Batch, embedded: Embedded) -> "RankerRows":
        """The batch up to the towers."""
        return cls(model, *model.represent(embedded, batch.dense, batch.sequence_lengths), batch.labels)

    def losses(self, weights: Weights, rows: Rows, among: Tensor | None = None) -> Tensor:
        """Binary cross-entropy of each of the rows."""
        logits, labels = self._logits(weights, rows), self.labels[rows.index]
        known = ~torch.isnan(labels)
        losses = F.binary_cross_entropy_with_logits(logits, torch.where(known, labels, 0.0), reduction="none")
        return torch.where(known, losses, 0.0)

    def outputs(self, weights: Weights, task: Tensor) -> tuple[Tensor, Vectors | None]:
        """Logits."""
        rows = Rows.of(task, len(next(iter(weights.values()))), torch.ones_like(task, dtype=torch.bool))
        logits = self._logits(weights, rows)
        return torch.empty_like(logits).index_copy(0, rows.index, logits), None

    def _logits(self, weights: Weights, rows: Rows) -> Tensor:
        """[R, T]. All tasks at once, their rows padded to those of the largest; what the padding gives is left out."""
        own = {name.removeprefix("towers."): w for name, w in weights.items()}
        index = pad_sequence(rows.index.split(rows.counts), batch_first=True)
        one = lambda w, x, pc: functional_call(self.model.towers, w, (x, pc))
        logits = vmap(one, randomness="different")(own, self.x[index], self.pc[index])
        present = torch.arange(index.shape[1], device=index.device) < rows.count_tensor.unsqueeze(1)
        return logits[present]


def _count(rows: Tensor) -> Tensor:
    return torch.arange(len(rows), device=rows.device)


def _of(weights: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    prefix = f"towers.{side}."
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
