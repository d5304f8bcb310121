"""PAM on a model: losses of rows by the weights of their popularity groups.

B rows of a batch, R of them, N groups, T tasks, D width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded
from coldrank.models.heads.heads import Heads
from coldrank.models.model import Vectors
from coldrank.models.ranker import RankerModule
from coldrank.models.two_tower import Sides, Tower, TwoTowerModule
from coldrank.modules.contrast import log_share, share_loss
from coldrank.modules.inner_loop import Weights
from coldrank.modules.pam import RowsByGroup


class SupportQuery(NamedTuple):
    """group: of each row, int64 [B]."""

    group: Tensor
    support: RowsByGroup
    query: RowsByGroup


class GroupRows(Protocol):
    """A batch before the part that is adapted. Weights are those of the model by name, stacked over the groups, [N,
    ...].

    labels: [B, T]."""

    labels: Tensor

    def losses(self, rows: RowsByGroup, among: Tensor | None = None) -> Callable[[Weights], Tensor]:
        """A function of the weights: the loss of each row and task by the weights of the row's group, [R, T]; 0
        where the label is unknown. What does not depend on the weights is computed once.

        among: rows whose users are the candidates of the two-tower model, int64 [U], the rows themselves among them;
        None: all of the batch."""

    def outputs(self, weights: Weights, group: Tensor) -> tuple[Tensor, Vectors | None]:
        """Logits [B, T] by the weights of each row's group, int64 [B]; of the two-tower model its vectors as well."""


@dataclass(slots=True)
class TowerRows:
    """A `GroupRows` of the two-tower model; users and items pass through the towers of the item's group. ids: as
    `TwoTowerModule.ids` says."""

    model: TwoTowerModule
    sides: Sides
    labels: Tensor
    ids: Tensor | None

    @classmethod
    def of(cls, model: TwoTowerModule, batch: Batch, sides: Sides) -> "TowerRows":
        """sides: of the whole batch."""
        return cls(model, sides, batch.labels, model.ids(batch.keys["user_id"].to(sides.item.device)))

    def losses(self, rows: RowsByGroup, among: Tensor | None = None) -> Callable[[Weights], Tensor]:
        """Eq. 7 of each of the rows."""
        user, ids, positive = self.sides.user, self.ids, rows.index
        if among is not None:
            user, ids = user.index_select(0, among), None if ids is None else ids[among]
            positive = rows.index.new_empty(len(self.labels)).index_copy(0, among, _count(among))[rows.index]
        item = self.sides.item.index_select(0, rows.padded.flatten()).view(*rows.padded.shape, self.sides.item.shape[1])
        labels = self.labels[rows.index, 0]

        there = [n for n, count in enumerate(rows.counts) if count] or [0]
        groups = slice(there[0], there[-1] + 1)  # users need not pass the towers of groups without rows
        item, counts = item[groups], rows.counts[groups]

        def of(weights: Weights) -> Tensor:
            weights = {name: w[groups] for name, w in weights.items()}
            users = self._tower("user")(user, _of(weights, "user"))
            items = self._tower("item")(item, _of(weights, "item")) / self.model.config.temperature
            return share_loss(log_share(items, users, positive, ids, counts), labels).unsqueeze(1)

        return of

    def outputs(self, weights: Weights, group: Tensor) -> tuple[Tensor, Vectors | None]:
        """Scores of each row's own user and item over the temperature, and the vectors."""
        users = self._tower("user")(self.sides.user, _of(weights, "user"))
        items = self._tower("item")(self.sides.item, _of(weights, "item"))
        item, user = items[group, _count(group)], users[group, _count(group)]
        scores = (user * item).sum(1, keepdim=True) / self.model.config.temperature
        return scores, Vectors(item.detach(), users.detach(), group)

    def _tower(self, side: str) -> Tower:
        tower = self.model.towers[side]
        assert isinstance(tower, Tower)
        return tower


@dataclass(slots=True)
class RankerRows:
    """A `GroupRows` of the ranker, whose towers are adapted. x: what they read, [B, T, D]. pc: personalization code."""

    model: RankerModule
    x: Tensor
    pc: Tensor
    labels: Tensor
    heads: Heads

    @classmethod
    def of(cls, model: RankerModule, batch: Batch, embedded: Embedded, heads: Heads) -> "RankerRows":
        """The batch up to the towers."""
        return cls(model, *model.represent(embedded, batch), batch.labels, heads)

    def losses(self, rows: RowsByGroup, among: Tensor | None = None) -> Callable[[Weights], Tensor]:
        """The heads' losses of each of the rows."""
        labels, logits = self.labels[rows.index], self._logits(rows)
        return lambda weights: self.heads.losses(logits(weights), labels)

    def outputs(self, weights: Weights, group: Tensor) -> tuple[Tensor, Vectors | None]:
        """Logits."""
        rows = RowsByGroup.of(group, len(next(iter(weights.values()))), torch.ones_like(group, dtype=torch.bool))
        logits = self._logits(rows)(weights)
        return torch.empty_like(logits).index_copy(0, rows.index, logits), None

    def _logits(self, rows: RowsByGroup) -> Callable[[Weights], Tensor]:
        """[R, T]. All groups at once, their rows padded to those of the largest; what the padding gives is left out."""
        x, pc = self.x[rows.padded], self.pc[rows.padded]
        present = _count(rows.padded[0]) < rows.count_tensor.unsqueeze(1)
        one = lambda w, x, pc: functional_call(self.model.towers, w, (x, pc))

        def of(weights: Weights) -> Tensor:
            of_towers = {name.removeprefix("towers."): w for name, w in weights.items()}
            logits: Tensor = vmap(one, randomness="different")(of_towers, x, pc)[present]
            return logits

        return of


def _count(rows: Tensor) -> Tensor:
    return torch.arange(len(rows), device=rows.device)


def _of(weights: Mapping[str, Tensor], side: str) -> dict[str, Tensor]:
    prefix = f"towers.{side}."
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}


@singledispatch
def group_rows(model: nn.Module, batch: Batch, embedded: Embedded, heads: Heads) -> GroupRows:
    """A batch before the part of its model that is adapted. heads: of the tasks. Another model's is registered
    with `group_rows.register`."""
    raise NotImplementedError


@group_rows.register
def _(model: TwoTowerModule, batch: Batch, embedded: Embedded, heads: Heads) -> GroupRows:
    return TowerRows.of(model, batch, model.sides(embedded, batch.dense))


@group_rows.register
def _(model: RankerModule, batch: Batch, embedded: Embedded, heads: Heads) -> GroupRows:
    return RankerRows.of(model, batch, embedded, heads)
