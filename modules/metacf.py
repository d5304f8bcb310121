"""MetaCF: meta-learned initial ID embeddings of new users, and their adaptation to a user's few events (Peng et al.,
2021).

B users, L events (padded), D width, K steps.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from coldrank.modules.checks import check_sizes, check_width

Learner = Literal["general", "linear", "neural"]


class MetaCF(nn.Module):
    """A user's few events -> the user's embedding p_u^K: an initial one, p_u^0 = g(x_u; Phi), then K gradient steps.

    learner: g. `general` (Eq. 8): one vector for all users. `linear` and `neural` (Eq. 9-10): W x_u, or two layers with
    a ReLU between them, `hidden` wide (0: `dim`); x_u is the mean of the positive items' vectors, zero without any.
    steps: K; 0 leaves p_u^0. rate: alpha, the size of each step; `learn_rates` makes them K parameters. first_order:
    the steps' gradients count as constants, as in the paper; else what is learnt through p_u^K is learnt through the
    steps as well.

    The paper's Eq. 1 and 5 leave out the sigmoid, and sum once over pairs where both terms are meant.
    """

    rates: Tensor

    def __init__(
        self,
        dim: int,
        learner: Learner = "neural",
        hidden: int = 0,
        steps: int = 5,
        rate: float = 2e-3,
        *,
        learn_rates: bool = False,
        first_order: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(dim=dim)
        if learner not in ("general", "linear", "neural"):
            raise ValueError(f"learner is {learner!r}: it must be general, linear or neural")
        if steps < 0 or rate < 0 or hidden < 0:
            raise ValueError(f"steps is {steps}, rate {rate}, hidden {hidden}: none may be below 0")
        self.dim, self.first_order = dim, first_order
        self.learner: nn.Module
        if learner == "general":
            self.learner = Shared(dim)
        elif learner == "linear":
            self.learner = nn.Linear(dim, dim, bias=False)
        else:
            hidden = hidden or dim
            self.learner = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        rates = torch.full((steps,), rate)
        if learn_rates and steps:
            self.rates = nn.Parameter(rates)
        else:
            self.register_buffer("rates", rates)

    def initial(self, items: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """p_u^0, [B, D]; the arguments are those of `forward`."""
        positive = labels * weights
        mean = (positive.unsqueeze(1) @ items).squeeze(1) / positive.sum(1, keepdim=True).clamp(min=1e-6)
        p: Tensor = self.learner(mean)
        return p

    def forward(self, items: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """items: float [B, L, D], the vectors of the users' items. labels: float [B, L], 1 for a positive item and 0
        for a negative one. weights: float [B, L], of the events in the loss; 0 where there is no event, and items and
        labels may be anything, NaN as well. -> p_u^K, float [B, D].

        ValueError for items of another width.
        """
        check_width("items", items, self.dim)
        nothing = weights == 0
        items, labels = items.masked_fill(nothing.unsqueeze(2), 0.0), labels.masked_fill(nothing, 0.0)
        p = self.initial(items, labels, weights)
        return logistic_steps(p, items, labels, weights, self.rates, self.first_order)


class Shared(nn.Module):
    """One vector for all: x [B, D] -> phi [B, D]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.phi = nn.Parameter(0.01 * torch.randn(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.phi.expand(x.shape[0], -1)


def logistic_steps(
    p: Tensor, items: Tensor, labels: Tensor, weights: Tensor, rates: Tensor, first_order: bool = True
) -> Tensor:
    """Gradient steps on each user's loss, p <- p - rate * grad L(p) for every rate in `rates` [K] (Eq. 4, Algorithm 1).

    p: float [B, D]; items, labels, weights as in `MetaCF.forward`. With s = sigmoid(q . p), the loss of Eq. 5 is L(p) =
    -sum_v w_v (y_v log s_v + (1 - y_v) log(1 - s_v)), and its gradient sum_v w_v (s_v - y_v) q_v: two batched products
    for all users, no automatic differentiation. first_order: the gradients count as constants. Scriptable.
    """
    for rate in rates.unbind(0):
        scores = (items @ p.unsqueeze(2)).squeeze(2)
        gradient = (((torch.sigmoid(scores) - labels) * weights).unsqueeze(1) @ items).squeeze(1)
        if first_order:
            gradient = gradient.detach()
        p = p - rate * gradient
    return p
