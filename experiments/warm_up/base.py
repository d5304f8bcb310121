"""The model of the old items: trained once per seed, then frozen, so that what it says of an event depends on the item's ID
embedding alone.

n events, D width of an ID embedding, S of the item's side features, U of a user's embedding.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coldrank.data.batches import BatchMaker, DataFolder
from coldrank.data.fit import fit_encoder
from coldrank.data.read import Line, Raw, list_row_groups, take_rows
from coldrank.experiments.warm_up.check import roles_of
from coldrank.models.embeddings import Embedded, EmbeddingStage
from coldrank.models.encode import FeatureEncoder, salt
from coldrank.models.features import Input
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig

# Keys of every sample.
ITEM, USER = "item_id", "user_id"


@dataclass(frozen=True, slots=True)
class Events:
    """Embedded events. static: [n, *], with the slot of the ID embedding. dense: [n, F]. labels: [n]. items: int64 [n], each
    item's place among those of the split. seen: int64 [n], events of the item before. users: raw ids, int64 [n]."""

    static: Tensor
    dense: Tensor
    labels: Tensor
    items: Tensor
    seen: Tensor
    users: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: Tensor) -> "Events":
        """Some of the events."""
        return Events(*(getattr(self, name)[index] for name in self.__slots__))


class Rows:
    """A split in memory. items: distinct items, ascending, its own unless given. places: of each row's item among them."""

    def __init__(self, data: DataFolder, split: str, make: BatchMaker, items: np.ndarray | None = None) -> None:
        groups = list_row_groups(data.files((split,)))
        columns = [*make.columns(), Input("item_seen", "int")]
        count = sum(g.rows for g in groups)
        self.raw: Raw = Line(groups, columns).read(0, count)
        self.items = np.unique(np.asarray(self.raw[ITEM])) if items is None else items
        self.places, self.count = torch.from_numpy(np.searchsorted(self.items, np.asarray(self.raw[ITEM]))), count
        self.seen = torch.from_numpy(np.asarray(self.raw["item_seen"]))

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Row numbers of a pass in random order."""
        order = rng.permutation(self.count)
        return (order[i : i + size] for i in range(0, self.count, size))


class Base(nn.Module):
    """Encoder, tables and ranker on one process, for one task."""

    def __init__(self, config: RunConfig, data: DataFolder, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.config = config
        features = validate(config)
        self.item, user, side = roles_of(config, features)
        self.encoder = FeatureEncoder(features)
        fit_encoder(self.encoder, data.files(("old",)))
        self.stage = EmbeddingStage(features)
        for table in self.stage.ebc.embedding_bags.values():
            nn.init.normal_(table.weight, std=config.optim.table_init)
        self.ranker = config.model.build(self.stage, features, 1)
        self.make = BatchMaker(self.encoder, list(config.tasks))
        places = self.stage.places
        columns = lambda names: torch.cat([torch.arange(places[n].start, places[n].stop) for n in names])
        self.slot = places[self.item.name]
        self.side, self.user = columns([f.name for f in side]), columns([user.name])
        self.dim = self.slot.stop - self.slot.start

    def events(self, rows: Rows, index: np.ndarray) -> Events:
        """Looks events up."""
        batch = self.make(take_rows(rows.raw, index))
        at = torch.from_numpy(index)
        static = self.stage(batch).static
        return Events(static, batch.dense, batch.labels[:, 0], rows.places[at], rows.seen[at], batch.keys[USER])

    @torch.no_grad()
    def all_events(self, rows: Rows) -> Events:
        """Those of a split whose label is known."""
        parts = [self.events(rows, i) for i in np.array_split(np.arange(rows.count), -(-rows.count // 8192))]
        return Events(*(torch.cat([getattr(p, name) for p in parts]) for name in Events.__slots__))

    def logits(self, events: Events, ids: Tensor | None = None) -> Tensor:
        """[n]; ids: ID embeddings [n, D] in the place of the events' own."""
        static = events.static
        if ids is not None:
            static = torch.cat([static[:, : self.slot.start], ids, static[:, self.slot.stop :]], 1)
        lengths = torch.zeros(0, len(static), dtype=torch.int64)
        logits: Tensor = self.ranker(Embedded(static, {}, static[:, :0]), events.dense, lengths)
        return logits.squeeze(1)

    def loss(self, events: Events, ids: Tensor | None = None) -> Tensor:
        """Mean cross-entropy over the events whose label is known."""
        known = ~torch.isnan(events.labels)
        return F.binary_cross_entropy_with_logits(self.logits(events, ids)[known], events.labels[known])

    def freeze(self) -> None:
        """No dropout, no gradients of its own from here on."""
        self.eval().requires_grad_(False)

    def ids_of(self, rows: Rows) -> Tensor:
        """ID embeddings of a split's items [N, D]."""
        ids = torch.from_numpy(rows.items)
        known = self.encoder.maps[self.item.table](ids ^ salt(self.item) if self.item.salted else ids)
        weight = self.stage.ebc.embedding_bags[self.item.table].weight
        assert isinstance(weight, Tensor)
        return weight.detach()[known]

    def side_of(self, rows: Rows) -> Tensor:
        """Embedded side features of a split's items [N, S]."""
        first = np.unique(np.asarray(rows.raw[ITEM]), return_index=True)[1]
        with torch.no_grad():
            return self.events(rows, first).static[:, self.side]


def pretrain(base: Base, rows: Rows, seed: int, dropout: float = 0.0) -> None:
    """Trains all of the base on the old items. dropout: DropoutNet's share of the events, drawn anew in each batch, whose ID
    embedding is the mean of all old items' (which gets no gradient)."""
    o, rng = base.config.optim, np.random.default_rng(seed)
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(base.parameters(), lr=o.dense_lr, weight_decay=o.weight_decay)
    base.train()
    for _ in range(base.config.train.epochs):
        for index in rows.batches(base.config.data.batch_size, rng):
            events = base.events(rows, index)
            ids = None
            if dropout:
                mean = base.ids_of(rows).mean(0)
                dropped = torch.rand(len(events), 1) < dropout
                ids = torch.where(dropped, mean, events.static[:, base.slot])
            optimizer.zero_grad()
            base.loss(events, ids).backward()
            optimizer.step()
    base.freeze()
