"""BPR for new users in MetaCF's experiment, with all that it may be done by.

E episodes, L support, N items, D width.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from metacf_train import NEGATIVES, Scorer, with_negatives
from torch import Tensor

from coldrank.modules.metacf import logistic_steps

if TYPE_CHECKING:
    from metacf_arms import Items


@dataclass(frozen=True, kw_only=True)
class BprConfig:
    """How the items are pre-trained, and how a new user gets a vector by steps on them."""

    pairs: bool = False
    """Whether the loss of both is BPR's, -log sigmoid(p . (q_i - q_j)), and not the paper's Eq. 2 and 3."""
    width: int = 32
    """D; the paper's is 32."""
    epochs: int = 40
    """Of pre-training."""
    l2: float = 1e-2
    """Lambda of pre-training, per example."""
    bias: bool = False
    """Whether items have a bias, which a new user's scores start with."""
    known: bool = False
    """Whether items are pre-trained on the records of meta-training, too."""
    pretraining_negatives: int = 0
    """Negatives per positive in pre-training; 0: the paper's 3, and 1 of BPR's pairs."""
    start: Literal["zero", "random", "mean"] = "zero"
    """The first vector of a new user; random: of standard deviation 0.1; mean: that of the pre-trained users."""
    steps: int = 50
    """Steps on the support."""
    rate: float = 0.05
    """Their size."""
    negatives: int = NEGATIVES
    """Negatives per positive in a step, weighted so that they count as 3."""
    redraw: bool = True
    """Whether every step has negatives of its own, as the paper has them ("at each training epoch")."""
    decay: float = 0.0
    """Lambda of Eq. 3, of the new user's vector."""


def bpr(base: BprConfig, items: "Items", settings: dict[str, Any]) -> Scorer:
    """Pre-trains the items as `base` and the settings say (`pretrained`: epochs and l2), and returns what scores."""
    changes = dict(settings)
    if "pretrained" in changes:
        changes["epochs"], changes["l2"] = changes.pop("pretrained")
    c = replace(base, **changes)
    loss = "bpr" if c.pairs else "bce"
    users, q = items.factors(
        loss, c.epochs, c.l2, dim=c.width, bias=c.bias, negatives=c.pretraining_negatives, known=c.known
    )
    generator, rate = torch.Generator().manual_seed(items.seed), torch.tensor([c.rate])

    def score(support: Tensor) -> Tensor:
        p = first_vectors(c, len(support), users, generator)
        for step in range(c.steps):
            if step == 0 or c.redraw:
                examples = _examples(c, support, q, generator)
            p = logistic_steps(p, *examples, rate) - 2 * c.rate * c.decay * p
            if c.bias:
                p[:, -1] = 1.0
        return p @ q.T

    return score


def first_vectors(c: BprConfig, count: int, users: Tensor, generator: torch.Generator) -> Tensor:
    """The vectors that `count` new users start with, float32 [count, D]. users: those pre-trained, float32 [U, D]."""
    p = torch.zeros(count, users.shape[1])
    if c.start == "mean":
        p += users.mean(0)
    elif c.start == "random":
        p = 0.1 * torch.randn(p.shape, generator=generator)
    if c.bias:
        p[:, -1] = 1.0
    return p


def _examples(c: BprConfig, support: Tensor, q: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors, labels and weights of the support and its negatives; of pairs: q_i - q_j, which all have label 1."""
    chosen, labels, weights = with_negatives(support, len(q), generator, c.negatives)
    if not c.pairs:
        return q[chosen], labels, weights
    length = support.shape[1]
    pairs = q[chosen[:, :length]].repeat(1, c.negatives, 1) - q[chosen[:, length:]]
    # A record's pairs count, those of padding don't.
    weights = weights[:, length:]
    return pairs, torch.ones_like(weights), weights
