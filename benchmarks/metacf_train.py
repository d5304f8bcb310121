"""Meta-training on top of pre-trained item vectors: MetaCF (Algorithm 1) with what we change in it, and MeLU.

E episodes, L support, N items, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from metacf_data import Episodes, UserSplit, draw, mask, measure
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import Linear, ReLU, Sequential
from torch.nn import functional as F

from coldrank.modules import MetaCF
from coldrank.modules.metacf import Learner

Scorer = Callable[[Tensor], Tensor]  # supports int64 [E, L] -> scores [E, N]
NEGATIVES, BATCH = 3, 256


def score(scorer: Scorer, test: Episodes) -> Tensor:
    """HR@10, NDCG@10 and whether there is a hit, of every episode, float32 [E, 3]."""
    parts = zip(test.support.split(512), test.query.split(512), strict=True)
    return torch.cat([measure(scorer(support), support, query) for support, query in parts])


@dataclass(kw_only=True)
class MetaConfig:
    """Meta-training: MetaCF as in the paper by default. `outer`, `replay`, `query` and `negatives` are ours."""

    learner: Learner = "neural"
    """MetaCF's learner of the first vector."""
    hidden: int = 32
    """Its hidden width."""
    steps: int = 5
    """MetaCF's steps."""
    rate: float = 2e-3
    """Their rate, or its first value."""
    learn_rates: bool = False
    """Whether the rates are learned."""
    first_order: bool = True
    """Whether gradients leave the steps' own out."""
    lr: float = 1e-3
    """Adam's rate for Phi, falling to a twentieth."""
    epochs: int = 50
    """Passes over the episodes."""
    outer: str = "bce"
    """The query's loss.

    bce: the paper's, logistic with 3 random negatives.
    softmax: cross-entropy over all items outside the support.
    """
    replay: bool = False
    """Whether episodes drawn anew in every epoch from the users of the pre-training join those of meta-training."""
    query: int = 0
    """Records in the query set of these; 0: as in meta-training."""
    negatives: int = NEGATIVES
    """Negatives per positive in the support, weighted so that they count as 3."""


def with_negatives(
    support: Tensor, count: int, generator: torch.Generator, negatives: int = NEGATIVES
) -> tuple[Tensor, Tensor, Tensor]:
    """The support and random negatives for each of its records: items, labels and weights, [E, L (1 + negatives)].

    Items are int64, labels and weights float32; padding has weight 0. support: int64 [E, L]. count: number of items.
    """
    valid = (support >= 0).float()
    other = torch.randint(0, count, (len(support), negatives * support.shape[1]), generator=generator)
    items = torch.cat([support.clamp(min=0), other], 1)
    labels = torch.cat([valid, torch.zeros(other.shape)], 1)
    weights = torch.cat([valid, valid.repeat(1, negatives) * (NEGATIVES / max(1, negatives))], 1)
    return items, labels, weights


def meta_train(split: UserSplit, q: Tensor, config: MetaConfig, seed: int) -> Scorer:
    """Trains Phi on the episodes of meta-training, and returns what scores a new user.

    q: the items' vectors, float32 [N, D], which stay as they are.
    """
    torch.manual_seed(seed)
    c, rng, generator = config, np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    user = MetaCF(
        q.shape[1], c.learner, c.hidden, c.steps, c.rate, learn_rates=c.learn_rates, first_order=c.first_order
    )
    optimizer = torch.optim.Adam(user.parameters(), lr=c.lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, max(1, c.epochs))

    def adapt(support: Tensor) -> Tensor:
        items, labels, weights = with_negatives(support, len(q), generator, c.negatives)
        p: Tensor = user(q[items], labels, weights)
        return p

    for _ in range(c.epochs):
        episodes = Episodes.concat([split.meta, draw(split.pretrain, rng, query=c.query)]) if c.replay else split.meta
        for batch in torch.randperm(len(episodes.users)).split(BATCH):
            support, query = episodes.support[batch], episodes.query[batch]
            loss = _query_loss(adapt(support), q, support, query, c.outer, generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return lambda support: _score(adapt, support, q)


@torch.no_grad()
def _score(adapt: Callable[[Tensor], Tensor], support: Tensor, q: Tensor) -> Tensor:
    return adapt(support) @ q.T


def _query_loss(p: Tensor, q: Tensor, support: Tensor, query: Tensor, outer: str, generator: torch.Generator) -> Tensor:
    """The loss of the query set, per user."""
    if outer == "softmax":
        logs = mask(p @ q.T, support).log_softmax(1).gather(1, query.clamp(min=0))
        valid = query >= 0
        return -(logs * valid / valid.sum(1, keepdim=True)).sum() / len(p)
    items, labels, weights = with_negatives(query, len(q), generator)
    scores = (q[items] @ p.unsqueeze(2)).squeeze(2)
    return (F.binary_cross_entropy_with_logits(scores, labels, reduction="none") * weights).sum() / len(p)


def melu(
    split: UserSplit, q: Tensor, *, hidden: int, steps: int, rate: float, lr: float, epochs: int, seed: int
) -> Scorer:
    """MeLU (Lee et al., 2019) as far as it goes without profiles.

    Its decision layers over an item's vector, which each user adapts as a whole, are meta-trained with the gradients
    through the steps. q: the items' vectors, float32 [N, D].
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = Sequential(Linear(q.shape[1], hidden), ReLU(), Linear(hidden, hidden), ReLU(), Linear(hidden, 1))
    weights = dict(net.named_parameters())
    optimizer = torch.optim.Adam(weights.values(), lr=lr)
    Weights = dict[str, Tensor]

    def loss(theta: Weights, items: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        scores = functional_call(net, theta, (q[items],)).squeeze(-1)
        return (F.binary_cross_entropy_with_logits(scores, labels, reduction="none") * present).sum()

    def adapted(theta: Weights, items: Tensor, labels: Tensor, present: Tensor) -> Weights:
        for _ in range(steps):
            by = grad(loss)(theta, items, labels, present)
            theta = {name: value - rate * by[name] for name, value in theta.items()}
        return theta

    def episode(theta: Weights, support: tuple[Tensor, ...], query: tuple[Tensor, ...]) -> Tensor:
        return loss(adapted(theta, *support), *query)

    for _ in range(epochs):
        for batch in torch.randperm(len(split.meta.users)).split(BATCH):
            both = [with_negatives(part[batch], len(q), generator) for part in (split.meta.support, split.meta.query)]
            total = vmap(episode, in_dims=(None, 0, 0))(weights, *both).sum() / len(batch)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()

    def scores(items: Tensor, labels: Tensor, present: Tensor) -> Tensor:
        theta = adapted({name: w.detach() for name, w in weights.items()}, items, labels, present)
        return functional_call(net, theta, (q,)).squeeze(-1)

    def score(support: Tensor) -> Tensor:
        with torch.no_grad():
            return vmap(scores, chunk_size=64)(*with_negatives(support, len(q), generator))

    return score
