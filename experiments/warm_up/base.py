"""The model of the old items: trained once per seed, then frozen.

So what it says of an event depends on the item's ID embedding alone.
n events, N items, F dense features. Widths: D of an ID embedding, S of the item's side features, U of a user's
embedding.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchrec import KeyedJaggedTensor

from coldrank.data.batches import BatchMaker, DataFolder
from coldrank.data.fit import fit_encoder
from coldrank.data.read import Line, Raw, list_row_groups, take_rows
from coldrank.experiments.warm_up.check import roles_of
from coldrank.models.batch import Batch
from coldrank.models.embeddings import EmbeddingStage, places
from coldrank.models.encode import FeatureEncoder, salt
from coldrank.models.features import Input
from coldrank.train.checks import validate
from coldrank.train.config import RunConfig

# Keys of every sample.
ITEM, USER = "item_id", "user_id"


@dataclass(frozen=True, slots=True)
class EmbeddedEvents:
    """EmbeddedEvents as the frozen model sees them."""

    static: Tensor
    """Embeddings of the fixed features, the item's ID among them, float32 [n, *]."""
    dense: Tensor
    """Numbers, float32 [n, F]."""
    labels: Tensor
    """float32 [n]; nan where unknown."""
    items: Tensor
    """The item's place among those of the split, int64 [n]."""
    seen: Tensor
    """EmbeddedEvents of the item before, int64 [n]."""
    users: Tensor
    """Ids, int64 [n]."""

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: Tensor) -> "EmbeddedEvents":
        """Some of the events. index: int64 [m] or bool [n]."""
        return EmbeddedEvents(*(getattr(self, name)[index] for name in self.__slots__))


class SplitRows:
    """A split in memory.

    items: distinct ids, int64 [N], ascending; None: those of the split.
    places: the place of each row's item among them, int64 [n].
    """

    def __init__(self, data: DataFolder, split: str, make: BatchMaker, items: np.ndarray | None = None) -> None:
        groups = list_row_groups(data.files((split,)))
        columns = [*make.columns(), Input("item_seen", "int")]
        count = sum(g.rows for g in groups)
        self.raw: Raw = Line(groups, columns).read([(0, count)])
        self.items = np.unique(np.asarray(self.raw[ITEM])) if items is None else items
        self.places, self.count = torch.from_numpy(np.searchsorted(self.items, np.asarray(self.raw[ITEM]))), count
        self.seen = torch.from_numpy(np.asarray(self.raw["item_seen"]))

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Row numbers of a pass in random order, `size` at a time, int64."""
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
            nn.init.normal_(table.weight, std=config.optim.tables.init)
        self.ranker = config.model.build(features, 1)
        self.make = BatchMaker(self.encoder, config.tasks)
        self.places = places(features)
        columns = lambda names: torch.cat([torch.arange(p.start, p.stop) for p in (self.places[n] for n in names)])
        self.slot = self.places[self.item.name]
        self.side, self.user = columns([f.name for f in side]), columns([user.name])
        self.dim = self.slot.stop - self.slot.start

    def events(self, rows: SplitRows, index: np.ndarray) -> EmbeddedEvents:
        """Looks events up. index: their rows, int64 [n]."""
        batch = self.make(take_rows(rows.raw, index))
        chosen, embedded = torch.from_numpy(index), self.stage(batch)
        static, labels = torch.cat([embedded[name] for name in self.places], 1), batch.labels[:, 0]
        return EmbeddedEvents(static, batch.dense, labels, rows.places[chosen], rows.seen[chosen], batch.keys[USER])

    @torch.no_grad()
    def all_events(self, rows: SplitRows) -> EmbeddedEvents:
        """Those of a split whose label is known."""
        parts = [self.events(rows, i) for i in np.array_split(np.arange(rows.count), -(-rows.count // 8192))]
        return EmbeddedEvents(*(torch.cat([getattr(p, name) for p in parts]) for name in EmbeddedEvents.__slots__))

    def logits(self, events: EmbeddedEvents, ids: Tensor | None = None) -> Tensor:
        """Logits, float32 [n]. ids: ID embeddings, float32 [n, D], in the place of the events' own; None: those."""
        static = events.static
        if ids is not None:
            static = torch.cat([static[:, : self.slot.start], ids, static[:, self.slot.stop :]], 1)
        lengths = torch.zeros(0, len(static), dtype=torch.int64)
        samples = Batch(KeyedJaggedTensor.empty(), events.dense, lengths, events.labels.unsqueeze(1), {})
        embedded = {name: static[:, columns] for name, columns in self.places.items()}
        logits: Tensor = self.ranker(embedded, samples)
        return logits.squeeze(1)

    def loss(self, events: EmbeddedEvents, ids: Tensor | None = None) -> Tensor:
        """Mean cross-entropy over the events whose label is known. ids: as in `logits`."""
        known = ~torch.isnan(events.labels)
        return F.binary_cross_entropy_with_logits(self.logits(events, ids)[known], events.labels[known])

    def freeze(self) -> None:
        """No dropout, no gradients of its own from here on."""
        self.eval().requires_grad_(False)

    def ids_of(self, rows: SplitRows) -> Tensor:
        """ID embeddings of a split's items, float32 [N, D]."""
        ids = torch.from_numpy(rows.items)
        known = self.encoder.maps[self.item.table](ids ^ salt(self.item) if self.item.salted else ids)
        weight = self.stage.ebc.embedding_bags[self.item.table].weight
        assert isinstance(weight, Tensor)
        return weight.detach()[known]

    def side_of(self, rows: SplitRows) -> Tensor:
        """Embedded side features of a split's items, float32 [N, S]."""
        first = np.unique(np.asarray(rows.raw[ITEM]), return_index=True)[1]
        with torch.no_grad():
            return self.events(rows, first).static[:, self.side]


def pretrain(base: Base, rows: SplitRows, seed: int, dropout: float = 0.0) -> None:
    """Trains all of the base on the old items.

    dropout: DropoutNet's share of the events, drawn anew in each batch, whose ID embedding is the mean of all old
        items'. The mean gets no gradient.
    """
    o, rng = base.config.optim.dense, np.random.default_rng(seed)
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(base.parameters(), o.lr, o.betas, o.eps, o.weight_decay)
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
