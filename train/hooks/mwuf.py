"""MWUF in a model: warm ID embeddings for items with few views (modules/mwuf.py), while it trains or on a frozen one.

Two losses: L_cold of the ID embeddings as they are, L_warm of the warm ones. L_cold trains what it would train without
the hook (mode joint), or the ID embeddings of cold items alone (warm_up). L_warm trains the two networks and nothing
else: its gradient is taken with respect to the warm embeddings, and handed on to the networks.

B batch, D width of the ID embedding, R rows of the item's table, K users that are remembered, U width of a user's
embedding.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from coldrank.data.errors import meant
from coldrank.models.batch import Batch
from coldrank.models.embeddings import Embedded, fixed_features, rows_of_embedded
from coldrank.models.features import Feature, FeatureSet
from coldrank.models.ids.growing import GrowingMap
from coldrank.models.ids.maps import VocabularyMap
from coldrank.models.model import Outputs
from coldrank.modules.mwuf import Mwuf as Networks
from coldrank.modules.mwuf import mean_users
from coldrank.train.distributed.ranks import of_all_ranks
from coldrank.train.hooks.hook import Hook, HookModule, Rest, RunView, Settings
from coldrank.train.hooks.rows import TableRows
from coldrank.train.optim.micro_batches import rows_of
from coldrank.train.stepping import Taken


class Views(NamedTuple):
    """Of a batch: rows of the items, views of these before, and ids of the users, int64 [B] each; users' embeddings [B,
    U]."""

    rows: Tensor
    views: Tensor
    ids: Tensor
    users: Tensor


@dataclass(kw_only=True, slots=True)
class Mwuf(Hook):
    """While an item has at most `max_views` views, as `cohorts.new_item_max_views` counts them, its warm ID embedding
    is scored with (docs/mwuf.md)."""

    reads: ClassVar[tuple[str, ...]] = ("item_views",)
    mode: Literal["joint", "warm_up"] = "joint"
    """joint: the model trains as it would without, the networks beside it. warm_up: the model, from `train.warm_start`,
    is frozen; the ID embeddings of cold items and the networks train."""
    item: str = "item_id"
    """The feature of the item's id."""
    user: tuple[str, ...] = ("user_id",)
    """The features that a user's embedding is made of."""
    max_views: NonNegativeInt = 50
    """Views of an item that is cold."""
    users: PositiveInt = 20
    """Of an item's first views, so many users are remembered, each with an embedding: rows of the item's table x users
    x width floats on every rank."""
    hidden: PositiveInt = 16
    """Width of the two networks."""
    lr_scale: PositiveFloat = 1.0
    """Their learning rate over that of the other dense parameters."""
    warm_every: PositiveInt = 3
    """Of the cold rows, one in so many trains the two networks, its gradient so many times as large."""
    common_init: bool = True
    """An item that is read for the first time begins with the mean of the old items' ID embeddings, those with more
    than `max_views` views."""
    refresh: PositiveInt = 100
    """Steps between two updates of that mean."""

    @property
    def own_lr_scale(self) -> float | None:
        return self.lr_scale

    def build(self, config: Settings, features: FeatureSet) -> "MwufModule":
        return MwufModule(self, config, features)

    def problem(self, config: Settings) -> str:
        if self.mode == "warm_up" and not config.train.warm_start:
            return "mwuf.mode=warm_up needs train.warm_start: the model is to be a trained one, and to stay"
        if self.mode == "warm_up" and config.optim.tables.weight_decay:
            return "mwuf.mode=warm_up needs optim.tables.weight_decay=0: the model is to be a trained one, and to stay"
        return ""

    def idle(self, config: Settings) -> list[tuple[bool, tuple[str, ...], str]]:
        return [(not self.common_init, ("refresh",), "with mwuf.common_init=False")]

    def written(self, config: Settings) -> frozenset[str]:
        items = (f.table_name for f in config.features if f.name == self.item)
        return frozenset(items if self.common_init else ())

    def side(self, features: FeatureSet) -> list[Feature]:
        """Embedded features of the item beside its id. Raises ValueError that names a field for settings that cannot
        work."""
        fixed = {f.name: f for f in fixed_features(features)}
        for name in (self.item, *self.user):
            if name not in fixed:
                raise ValueError(f"{name!r} is no embedded feature outside sequences; {meant(name, fixed)}")
        item = fixed[self.item]
        if item.kind != "id" or item.many or features.table(item.table).reads != 1:
            raise ValueError(f"item={self.item!r}: must be one id with one row")
        of_item = [f for f in fixed.values() if f.role == "item" and f.name != self.item]
        if not of_item or not self.user:
            what = "user=[]: name a feature" if of_item else "scales by embedded features of role 'item'; none"
            raise ValueError(what)
        return of_item


class MwufModule(HookModule):
    """Remembers the users of every item's first K views, each at the place of its view, so that an event sees those
    before it alone, in whatever order events are trained on.

    users: [R, K, U], embeddings as they were when trained on. present: bool [R, K]. views: int64 [R], of each item so
    far. common: [D], the mean that new items begin with; zeros until a refresh finds an old item.
    """

    micro_batches: ClassVar[bool] = False  # what `embed` has kept waits for `dense`, whole
    users: Tensor
    present: Tensor
    views: Tensor
    common: Tensor
    steps: Tensor

    def __init__(self, c: Mwuf, config: Settings, features: FeatureSet) -> None:
        super().__init__()
        self.config = c
        side = c.side(features)
        self.side = [f.name for f in side]
        item = next(f for f in features.sparse if f.name == c.item)
        table = features.table(item.table)
        self.table = table.name
        self.shared_row = table.mapping in ("vocabulary", "growing", "managed")  # row 0: all unknown items together
        widths = {f.name: features.dim(f) for f in features.embedded}
        user_dim = sum(widths[name] for name in c.user)
        self.nets = Networks(table.dim, sum(widths[name] for name in self.side), user_dim, c.hidden)
        self.register_buffer("users", torch.zeros(table.rows, c.users, user_dim))
        self.register_buffer("present", torch.zeros(table.rows, c.users, dtype=torch.bool))
        self.register_buffer("views", torch.zeros(table.rows, dtype=torch.int64))
        self.register_buffer("common", torch.zeros(table.dim))
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
        self._seen: Views | None = None
        self._warm: tuple[Tensor, Tensor] | None = None
        self._rows: TableRows | None = None

    def embed(self, batch: Batch, embedded: Embedded) -> Embedded:
        """Evaluation: warm ID embeddings in the place of cold items' own. Training: the ID embeddings as they are."""
        item = self.config.item
        ids = embedded[item]
        rows = batch.rows(item)
        views = batch.keys["item_views"].to(ids.device, non_blocking=True)
        cold = views <= self.config.max_views
        users = batch.keys["user_id"].to(ids.device, non_blocking=True) if self.training else views
        trains = self.training and torch.is_grad_enabled()
        # Which rows train the networks depends on the rows alone, so that it is the same on any number of ranks.
        warms = cold & ((users + views) % self.config.warm_every == 0) if trains else cold
        positions = warms.nonzero().squeeze(1)
        side = torch.cat([embedded[name] for name in self.side], 1)
        warm = self.warmed(ids[positions], side[positions], rows[positions], views[positions])
        if not trains:
            return embedded | {item: ids.index_copy(0, positions, warm)}
        of_users = torch.cat([embedded[name] for name in self.config.user], 1).detach()
        self._seen = Views(rows, views, users, of_users)
        self._warm = warm, positions
        if self.config.mode == "joint":
            return embedded
        still = {name: values.detach() for name, values in embedded.items()}
        return still | {item: torch.where(cold.unsqueeze(1), ids, ids.detach())}

    def warmed(self, ids: Tensor, side: Tensor, rows: Tensor, views: Tensor) -> Tensor:
        """Warm ID embeddings of items at `rows` that had so many views: ids [B, D], side [B, S] of their other
        features, rows and views int64 [B] -> [B, D]; gradients reach the networks alone."""
        present = self.present[rows] & (torch.arange(self.config.users, device=views.device) < views.unsqueeze(1))
        if self.shared_row:
            present = present & (rows > 0).unsqueeze(1)
        users = mean_users(self.users[rows], present)
        warm: Tensor = self.nets(ids.detach(), side.detach(), users)
        return warm

    def dense(self, rest: Rest, batch: Batch, embedded: Embedded) -> Outputs:
        """Training: L_cold with its value, and L_warm with its gradient alone. L_warm is of the batch's own pass."""
        out = rest(batch, embedded)
        if rest.side or self._warm is None or not self.training or not torch.is_grad_enabled():
            return out
        (warm, positions), self._warm = self._warm, None
        gradient = torch.zeros_like(warm)
        if len(positions) or not rest.by_rows:
            leaf = warm.detach().requires_grad_()
            # Where rows do not meet in the loss, those of warm items add nothing to its gradient.
            rows = positions if rest.by_rows else torch.arange(len(batch), device=positions.device)
            some = rows_of(batch, rows) if rest.by_rows else batch
            part, item = rows_of_embedded(embedded, rows), self.config.item
            # A view: torch's counter of FLOPs takes no leaf as a module's input.
            part[item] = leaf.view_as(leaf) if rest.by_rows else part[item].index_copy(0, positions, leaf)
            # Dropout draws in the next batch what it would draw without this pass.
            with torch.random.fork_rng(devices=[leaf.device] if leaf.is_cuda else []):
                loss = rest.aside(some, part).loss
            # A loss over some of the rows is a mean over these; one over the batch is what it is in the step.
            share = len(rows) / batch.mean_size if rest.by_rows else 1.0
            weight = self.config.warm_every * share
            (gradient,) = torch.autograd.grad(loss * weight, leaf)
        handed_on = (warm * gradient).sum()
        return out._replace(loss=out.loss + (handed_on - handed_on.detach()))

    def before_step(self, run: RunView, taken: Taken) -> None:
        """Gives new items the common initialisation; mode warm_up: holds the model still."""
        if self._rows is None:
            self._rows = TableRows(run.model, self.table)
        if self.config.mode == "warm_up":
            for part in run.optimizers.parts:
                if part.what not in ("tables", "hook mwuf"):
                    part.set(0.0)
        if run.config.train.warm_start and not self.views.any():
            # The model knows its items; those that have come with a batch are told apart by it.
            self.views[rows_with_an_id(run.encoder.maps[self.table], len(self.views))] = self.config.max_views + 1
        given = taken.new_rows.get(self.table)
        if given is not None:
            new = given.rows.to(self.views.device)
            self.views[new], self.present[new] = 0, False
        if not self.config.common_init:
            return
        rows = taken.batch.rows(self.config.item).to(self.views.device)
        begun = taken.batch.keys["item_views"].to(self.views.device) <= self.config.max_views
        new = of_all_ranks(rows[begun & (self.views[rows] == 0)]).unique()
        old = self.views > self.config.max_views
        if self.shared_row:
            new, old[0] = new[new > 0], False
        if self.steps % self.config.refresh == 0 and old.any():
            self.common.copy_(self._rows.mean(old))
        if self.common.any():
            self._rows.write(new, self.common)

    def after_step(self, run: RunView) -> None:
        """Remembers the users of the batch, of all ranks."""
        assert self._seen is not None
        seen, self._seen = Views(*(of_all_ranks(t) for t in self._seen)), None
        self.steps += 1
        self.views.scatter_reduce_(0, seen.rows, seen.views + 1, "amax")
        kept = seen.views < self.config.users
        place = (seen.rows * self.config.users + seen.views)[kept]
        # Views of one moment share a place: the user with the largest id has it, whichever rank has read them.
        order = seen.ids[kept].argsort(stable=True)
        order = order[place[order].argsort(stable=True)]
        places = place[order]
        last = torch.ones_like(places, dtype=torch.bool)
        last[:-1] = places[1:] != places[:-1]
        self.users.view(-1, self.users.shape[2])[places[last]] = seen.users[kept][order[last]]
        self.present.view(-1)[places] = True


def rows_with_an_id(items: nn.Module, rows: int) -> Tensor:
    """bool [R]: which rows of a table belong to an id; where the map does not tell, all."""
    held = torch.zeros(rows, dtype=torch.bool)
    if isinstance(items, VocabularyMap):
        held[1 : 1 + int((items.ids < items.largest).sum())] = True
    elif isinstance(items, GrowingMap):
        held[items.rows_given(0, int(items.size))] = True
    else:
        held[:] = True
    return held
