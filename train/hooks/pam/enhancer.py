"""PAM's cold-start enhancer (section 4.3): popular items dressed as the cold items that they were.

B rows of a batch, R of them, D width.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coldrank.data.errors import UserError, meant
from coldrank.models.batch import Batch
from coldrank.models.features import FeatureSet
from coldrank.models.two_tower import Sides, Tower, TwoTowerModule
from coldrank.modules.gate import separate_draws
from coldrank.modules.inner_loop import Weights
from coldrank.modules.pam import RowsByGroup
from coldrank.train.distributed.ranks import of_all_ranks, per_rank
from coldrank.train.hooks.hook import Settings
from coldrank.train.hooks.pam.config import PamConfig
from coldrank.train.hooks.pam.rows import GroupRows, SupportQuery, TowerRows


class Adapting(Protocol):
    """What the enhancer asks of PAM; `Pam` says what each does."""

    def adapt(self, rows: GroupRows, support: RowsByGroup, start: Weights, among: Tensor | None) -> list[Weights]: ...

    def among(self, rows: RowsByGroup) -> Tensor | None: ...

    def query_scale(self, query: RowsByGroup, size: float) -> Tensor: ...

    def of_groups(self, losses: Tensor, rows: RowsByGroup) -> Tensor: ...


class Enhancer(nn.Module):
    """gamma_S L_S + gamma_A L_A.

    store: what an item's behaviour embeddings were while it was cold, float32 [rows of the item table, D]; kept:
    whether there is something, bool [rows]. Both are equal on all ranks. They end where the table ends.
    """

    store: Tensor
    kept: Tensor
    columns: Tensor

    def __init__(self, c: PamConfig, config: Settings, features: FeatureSet) -> None:
        super().__init__()
        self.config = c
        with torch.device("meta"):
            model = config.model.build(features, 1)
        assert isinstance(model, TwoTowerModule)
        for name in c.behaviour:
            if name not in model.item_columns:
                raise UserError(
                    f"{config.name}: pam.behaviour has {name!r}, which is no embedded feature of the item; "
                    f"{meant(name, model.item_columns)}"
                )
        self.id = c.behaviour[0]
        table = features.table(next(f for f in features.features if f.name == self.id).table_name)
        if table.reads != 1:
            raise UserError(
                f"{config.name}: pam.behaviour: {self.id!r} reads {table.reads} rows of its table; must be 1"
            )
        self.table = table.name
        # Row 0 of these is shared by the ids that have no row of their own.
        self.first = 1 if table.mapping in ("growing", "vocabulary", "managed") else 0
        of_features = [model.item_columns[name] for name in c.behaviour]
        self.id_columns = of_features[0]
        columns = [column for place in of_features for column in range(place.start, place.stop)]
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.register_buffer("store", torch.zeros(table.rows, len(columns)))
        self.register_buffer("kept", torch.zeros(table.rows, dtype=torch.bool))
        widths = (self.columns.numel() if not model.config.widths[:-1] else model.config.widths[-2], table.dim)
        with separate_draws():
            self.to_id = nn.Linear(*widths)
        self._cold: tuple[Tensor, Tensor] | None = None

    def forward(
        self,
        pam: Adapting,
        rows: TowerRows,
        batch: Batch,
        split: SupportQuery,
        start: Weights,
        adapted: Weights,
    ) -> Tensor:
        """start, adapted: weights of all groups before and after the inner loop -> scalar."""
        c, items = self.config, batch.sparse[self.id].values()
        known = self.kept[items] & (items >= self.first)
        # Eq. 12: behaviour as it was, content as it is now; Eq. 18: the embeddings learn from all of the loss.
        user, item = rows.sides if c.enhancer_trains == "all" else (side.detach() for side in rows.sides)
        dressed = item.clone()
        dressed[:, self.columns] = self.store[items]
        loss = torch.zeros((), device=dressed.device)
        if c.gamma[1]:
            loss = loss + c.gamma[1] * self._instruct(rows, dressed, known & (split.group > c.cold), adapted)
        if c.gamma[2]:
            donors = split.group == c.cold + 1 if c.dress == "next" else split.group > c.cold
            as_cold = TowerRows(rows.model, Sides(user, dressed), rows.labels, rows.ids)
            augmented = self._augment(pam, as_cold, split, known & donors, start, batch.mean_size)
            loss = loss + c.gamma[2] * augmented
        return loss

    def _instruct(self, rows: TowerRows, dressed: Tensor, use: Tensor, adapted: Weights) -> Tensor:
        """Eq. 15-16: the cold group's weights map a dressed item to the ID embedding that it has now; the mean squared
        error."""
        tower = rows.model.towers["item"]
        assert isinstance(tower, Tower)
        prefix = "towers.item."
        cold = {n.removeprefix(prefix): w[self.config.cold] for n, w in adapted.items() if n.startswith(prefix)}
        predicted = self.to_id(tower.hidden(dressed[use], cold))
        target = rows.sides.item[use][:, self.id_columns].detach()
        numbers = torch.tensor(target.numel(), device=target.device)
        return F.mse_loss(predicted, target, reduction="sum") / per_rank(numbers, predicted.dtype)

    def _augment(
        self,
        pam: Adapting,
        rows: TowerRows,
        split: SupportQuery,
        use: Tensor,
        start: Weights,
        size: float,
    ) -> Tensor:
        """Eq. 14: the query loss of the cold group on dressed items, by weights adapted to a support set of such: what
        are support rows without the dress."""
        first = torch.zeros_like(use).index_fill(0, split.support.index, True)
        one = torch.zeros_like(split.group)
        cold = {name: w[self.config.cold].unsqueeze(0) for name, w in start.items()}
        weights = pam.adapt(rows, RowsByGroup.of(one, 1, use & first), cold, pam.among(split.support))[-1]
        query = RowsByGroup.of(one, 1, use & ~first if self.config.query == "rest" else use)
        scale = pam.query_scale(query, size)
        losses = rows.losses(query, pam.among(split.query))(weights)
        return (pam.of_groups(losses, query) * scale).sum()

    def note(self, batch: Batch, group: Tensor, inputs: Tensor, cuts: Tensor) -> None:
        """Notes what cold items look like in this batch. group: of its rows [B]; inputs: what the item's tower reads
        [B, D]; cuts: where the groups part, in views."""
        c, items = self.config, batch.sparse[self.id].values()
        cold = (group == c.cold) & (items >= self.first)
        if c.store == "spread":
            low, high = [-1, *cuts.tolist()][c.cold : c.cold + 2]
            due = low + 1 + batch.keys["item_id"] % (high - low) == batch.keys["item_views"]
            cold &= due.to(cold.device)
        self._cold = items[cold], inputs.detach()[cold][:, self.columns]

    def keep(self) -> None:
        """Writes what was noted, of all ranks; of an item that was met more than once, the last."""
        if self._cold is None:
            return
        (items, values), self._cold = map(of_all_ranks, self._cold), None
        unique, place = items.unique(return_inverse=True)
        order = torch.arange(len(items), device=items.device)
        last = torch.zeros_like(unique).scatter_reduce(0, place, order, "amax")
        self.store[unique], self.kept[unique] = values[last], True
