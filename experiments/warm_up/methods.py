"""The methods that are compared: what ID embedding a new item gets, and how its first events change it.

Each learns what it can from the old items, then sees the three warm sets one after another, `passes` times each. The
model is frozen throughout; labels outside the warm set of the phase, and later ones, are seen by none.

n events, N items. Widths: D of an ID embedding, S of the item's side features, U of a user's embedding. All float32.
"""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from coldrank.experiments.warm_up.base import Base, EmbeddedEvents, SplitRows
from coldrank.modules.cvar import Cvar
from coldrank.modules.mwuf import Mwuf, two_layers
from coldrank.modules.posterior import Gaussian, curvature, fit_prior, newton_step

BATCH = 2048
RATE = 1e-3  # Adam's, for what is learned from the old items; CVAR's authors'


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodSettings:
    """How a method learns in the phases."""

    passes: int = 1
    """Passes over each warm set."""
    id_lr: float = 1e-3
    """Adam's rate for the new ID embeddings."""
    strength: float = 1.0
    """Strength of the prior (`Posterior`)."""


class Method:
    """The plain model: new ID embeddings are drawn as the old ones were, then trained."""

    def __init__(self, base: Base, old: SplitRows, side: Tensor, seed: int) -> None:
        """side: embedded side features of the new items, [N, S]."""
        self.base, self.old, self.side, self.seed = base, old, side, seed
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.prepare()

    def prepare(self) -> None:
        """Learns from the old items."""

    def start(self, settings: MethodSettings) -> None:
        """Begins anew with the new items."""
        self.settings, self.rng = settings, np.random.default_rng(self.seed)
        torch.manual_seed(self.seed)
        self.table = nn.Parameter(self.first())
        self.optimizer = torch.optim.Adam([self.table], lr=settings.id_lr)

    def first(self) -> Tensor:
        """ID embeddings of the new items without an event, [N, D]."""
        return torch.randn(len(self.side), self.base.dim) * self.base.config.optim.tables.init

    def ids(self, events: EmbeddedEvents) -> Tensor:
        """ID embeddings to score events with, [n, D]."""
        return self.table[events.items]

    def warm(self, events: EmbeddedEvents) -> None:
        """Learns from a warm set: L_cold, on the new ID embeddings alone."""
        for _ in range(self.settings.passes):
            for index in torch.from_numpy(self.rng.permutation(len(events))).split(BATCH):
                some = events.rows(index)
                self.optimizer.zero_grad()
                self.base.loss(some, self.table[some.items]).backward()
                self.optimizer.step()


class Mean(Method):
    """The common initialisation: new ID embeddings begin as the mean of the old ones.

    On a base that was trained with dropped ID embeddings this is DropoutNet.
    """

    def first(self) -> Tensor:
        """The mean, for all."""
        return self.base.ids_of(self.old).mean(0).repeat(len(self.side), 1)


class MetaEmb(Method):
    """Meta-Embedding (Pan et al., 2019): ID embeddings are generated from side features.

    The generator learns to make embeddings that score well both as they are (weight 0.1) and after one gradient step on
    other events of the same items (0.9).
    """

    def prepare(self) -> None:
        """One pass: every batch holds, for as many events, another event of the same item."""
        base, old = self.base, self.old
        self.generator = two_layers(len(base.side), 16, base.dim)
        for parameter in self.generator[2].parameters():
            nn.init.normal_(parameter, std=0.01)
        optimizer = torch.optim.Adam(self.generator.parameters(), lr=RATE)
        order, starts, counts = by_item(old)
        for index in old.batches(2 * BATCH, self.rng):
            first, second = index[: len(index) // 2], index[: len(index) // 2]
            item = old.places.numpy()[second]
            second = order[starts[item] + (self.rng.random(len(item)) * counts[item]).astype(np.int64)]
            a, b = base.events(old, first), base.events(old, second)
            ids = self.generator(a.static[:, base.side])
            loss_a = base.loss(a, ids)
            (gradient,) = torch.autograd.grad(loss_a, ids, create_graph=True)
            loss = 0.1 * loss_a + 0.9 * base.loss(b, ids - RATE * gradient)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def first(self) -> Tensor:
        """What the generator makes of the side features."""
        with torch.no_grad():
            generated: Tensor = self.generator(self.side)
            return generated


class Warm(Mean):
    """MWUF: scaling from side features, shifting from the mean of the users so far, on embeddings trained by L_cold."""

    def prepare(self) -> None:
        """One pass over the old items with new ID embeddings: L_cold trains these, L_warm the networks."""
        base, old = self.base, self.old
        self.nets = self.networks()
        table = nn.Parameter(base.ids_of(old).mean(0).repeat(len(old.items), 1))
        cold = torch.optim.Adam([table], lr=RATE)
        warm = torch.optim.Adam(self.nets.parameters(), lr=RATE)
        means = users_before(base, old)
        for index in old.batches(BATCH, self.rng):
            self.learn(base.events(old, index), means[torch.from_numpy(index)], table, cold, warm)

    def networks(self) -> Mwuf:
        """Fresh ones."""
        return Mwuf(self.base.dim, len(self.base.side), len(self.base.user))

    def learn(
        self, events: EmbeddedEvents, users: Tensor, table: nn.Parameter, cold: torch.optim.Adam, warm: torch.optim.Adam
    ) -> None:
        """A step of L_cold, then one of L_warm. users: mean embedding of the users before each event, [n, U]."""
        cold.zero_grad()
        self.base.loss(events, table[events.items]).backward()
        cold.step()
        warm.zero_grad()
        ids = self.warmed(table.detach()[events.items], events.static[:, self.base.side], users, events.seen)
        self.base.loss(events, ids).backward()
        warm.step()

    def warmed(self, ids: Tensor, side: Tensor, users: Tensor, views: Tensor) -> Tensor:
        """Warm embeddings, [n, D], of cold ones.

        ids: [n, D]. side: [n, S]. users: mean embedding of the users so far, [n, U]. views: of the item so far, [n].
        """
        warm: Tensor = self.nets(ids, side, users)
        return warm

    def start(self, settings: MethodSettings) -> None:
        """No user yet."""
        super().start(settings)
        self.sums, self.counts = torch.zeros(len(self.side), self.nets.user_dim), torch.zeros(len(self.side), 1)

    def ids(self, events: EmbeddedEvents) -> Tensor:
        """Warm embeddings, by the users of the warm sets so far."""
        with torch.no_grad():
            users, side = self.sums / self.counts.clamp(min=1.0), events.static[:, self.base.side]
            items = events.items
            return self.warmed(self.table[items], side, users[items], self.counts[items, 0])

    def warm(self, events: EmbeddedEvents) -> None:
        """L_cold; the users of the set count from then on."""
        super().warm(events)
        self.sums.index_add_(0, events.items, events.static[:, self.base.user])
        self.counts.index_add_(0, events.items, torch.ones(len(events), 1))


class CvarWarm(Mean):
    """CVAR: its networks and an ID table of their own learn from the old items and go on learning in the phases.

    What they decode takes the place of the ID embeddings at the end of each phase.
    """

    def prepare(self) -> None:
        """One pass over the old items."""
        base = self.base
        self.nets = Cvar(base.dim, len(base.side) + base.dim)
        self.net_ids = nn.Parameter(torch.randn(len(self.old.items) + len(self.side), base.dim) * 0.01)
        self.net_optimizer = torch.optim.Adam([*self.nets.parameters(), self.net_ids], lr=RATE)
        ids = base.ids_of(self.old)
        for index in self.old.batches(BATCH, self.rng):
            events = base.events(self.old, index)
            self._step(events, ids[events.items], self.net_ids[events.items])
        self.learned = deepcopy((self.nets, self.net_ids, self.net_optimizer))

    def start(self, settings: MethodSettings) -> None:
        """Networks and their table as they were learned from the old items."""
        self.nets, self.net_ids, self.net_optimizer = deepcopy(self.learned)
        super().start(settings)

    def _step(self, events: EmbeddedEvents, ids: Tensor, net_ids: Tensor) -> None:
        """A step of the networks. ids, net_ids: the events' rows of the model's and of their own ID table, [n, D]."""
        side = torch.cat([net_ids, events.static[:, self.base.side]], 1)
        out = self.nets(ids, side, events.seen)
        loss = self.base.loss(events, out.warm) + out.reconstruction + 1e-4 * out.divergence
        self.net_optimizer.zero_grad()
        loss.backward()
        self.net_optimizer.step()

    def first(self) -> Tensor:
        """Decoded from the side features, at no view."""
        return self._decoded(0)

    def _decoded(self, views: int) -> Tensor:
        side = torch.cat([self.net_ids[len(self.old.items) :], self.side], 1)
        with torch.no_grad():
            count = torch.full((len(side),), views)
            out: Tensor = self.nets(torch.zeros(len(side), self.base.dim), side, count).warm
            return out

    def warm(self, events: EmbeddedEvents) -> None:
        """`passes` for the ID embeddings, then `passes` for the networks."""
        super().warm(events)
        for _ in range(self.settings.passes):
            for index in torch.from_numpy(self.rng.permutation(len(events))).split(BATCH):
                some = events.rows(index)
                net_ids = self.net_ids[some.items + len(self.old.items)]
                self._step(some, self.table.detach()[some.items], net_ids)
        self.table.data.copy_(self._decoded(int(events.seen.max()) + 1))


class Posterior(Method):
    """Empirical Bayes: the prior of an ID embedding is a Gaussian around a linear function of the side features.

    It is fitted to the old items' trained embeddings. A pass over a warm set is one Newton step to the mode; mode and
    curvature are the next set's prior.
    """

    def prepare(self) -> None:
        """Fits the prior."""
        self.fitted = fit_prior(self.base.ids_of(self.old), self.base.side_of(self.old))

    def start(self, settings: MethodSettings) -> None:
        """The prior of the new items."""
        self.prior = self.fitted.of(self.side, settings.strength)
        super().start(settings)

    def first(self) -> Tensor:
        """The prior's mean."""
        return self.prior.mean.clone()

    def warm(self, events: EmbeddedEvents) -> None:
        """Newton steps; the events' curvature stays in the prior."""
        ids = self.prior.mean
        for _ in range(self.settings.passes):
            gradient, matrix = self._curvature(events, ids)
            ids = newton_step(self.prior, ids, gradient, matrix)
        self.prior = Gaussian(ids, self.prior.precision + matrix)
        self.table.data.copy_(ids)

    def _curvature(self, events: EmbeddedEvents, ids: Tensor) -> tuple[Tensor, Tensor]:
        mine = ids[events.items].requires_grad_()
        logits = self.base.logits(events, mine)
        (slopes,) = torch.autograd.grad(logits.sum(), mine)
        return curvature(slopes, logits.detach(), events.labels, events.items, len(ids))


class PosteriorWithoutSide(Posterior):
    """Part: the prior's mean is that of the old items, the same for all."""

    def prepare(self) -> None:
        """Fits the prior to no side features; those of the new items are not looked at either."""
        self.fitted = fit_prior(self.base.ids_of(self.old), torch.zeros_like(self.base.side_of(self.old)))
        self.fitted.weight[:-1] = 0.0


class PosteriorIsotropic(Posterior):
    """Part: the prior's covariance is the same in all directions."""

    def prepare(self) -> None:
        """Fits the prior, and keeps the mean variance."""
        super().prepare()
        variance = self.fitted.covariance.diagonal().mean()
        self.fitted = self.fitted._replace(covariance=variance * torch.eye(self.base.dim))


class PriorMean(Posterior):
    """Part: ID embeddings begin as the prior's mean and are trained as in the plain model."""

    def warm(self, events: EmbeddedEvents) -> None:
        """L_cold."""
        Method.warm(self, events)


def by_item(rows: SplitRows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers sorted by item, then time, int64 [n]; where each item's begin and how many they are, int64 [N]."""
    order = np.lexsort((rows.seen.numpy(), rows.places.numpy()))
    counts = np.bincount(rows.places.numpy(), minlength=len(rows.items))
    return order, np.cumsum(counts) - counts, counts


def users_before(base: Base, rows: SplitRows) -> Tensor:
    """Mean embedding of the users of an item's earlier events, for each event, [n, U]; zeros for the first."""
    users = base.all_events(rows).static[:, base.user]
    row_numbers, item_starts, _ = by_item(rows)
    order, starts = torch.from_numpy(row_numbers), torch.from_numpy(item_starts)
    sums = users[order].double().cumsum(0) - users[order].double()
    item = rows.places[order]
    before = sums - sums[starts][item]
    place = torch.arange(len(order)) - starts[item]
    means = torch.empty_like(users)
    means[order] = (before / place.clamp(min=1).unsqueeze(1)).float()
    return means
