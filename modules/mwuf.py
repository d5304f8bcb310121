"""MWUF (Zhu et al., SIGIR 2021): meta scaling and shifting networks that warm up cold item ID embeddings.

B batch, D width of the ID embedding, S width of the side features, U width of a user embedding.
"""

import torch
from torch import Tensor, nn

from coldrank.modules.checks import check_sizes, check_width
from coldrank.modules.gate import separate_draws


class Mwuf(nn.Module):
    """v_warm = v * tau_scale + tau_shift, with tau_scale = h(side features) and tau_shift = g(mean of the user
    embeddings).

    h and g are two linear layers with a ReLU between them. Their last layers start at zero, h's output is counted from
    1: a fresh warm-up is the identity, bit for bit.
    """

    def __init__(self, dim: int, side_dim: int, user_dim: int, hidden: int = 16) -> None:
        super().__init__()
        check_sizes(dim=dim, side_dim=side_dim, user_dim=user_dim, hidden=hidden)
        self.dim, self.side_dim, self.user_dim = dim, side_dim, user_dim
        with separate_draws():
            self.scaling = two_layers(side_dim, hidden, dim)
            self.shifting = two_layers(user_dim, hidden, dim)

    def forward(self, ids: Tensor, side: Tensor, users: Tensor) -> Tensor:
        """ids: cold ID embeddings, float [B, D]. side: embedded side features of the items, [B, S]. users: mean
        embedding of the users who interacted with each item so far, [B, U], zeros where nobody has. Gives the warm
        embeddings [B, D]."""
        check_width("ids", ids, self.dim)
        check_width("side", side, self.side_dim)
        check_width("users", users, self.user_dim)
        warm: Tensor = ids * (1.0 + self.scaling(side)) + self.shifting(users)
        return warm


def two_layers(in_dim: int, hidden: int, out_dim: int) -> nn.Sequential:
    """Linear, ReLU, Linear; zero at first for every input."""
    last = nn.Linear(hidden, out_dim)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(in_dim, hidden), nn.ReLU(), last)


def mean_users(users: Tensor, present: Tensor) -> Tensor:
    """Mean over the users that are present: users float [B, K, U], present bool [B, K] -> [B, U], zeros without any;
    what is not there may be anything, NaN as well."""
    weights = present.to(users.dtype).unsqueeze(1)
    return torch.bmm(weights, users.masked_fill(~present.unsqueeze(2), 0.0)).squeeze(1) / weights.sum(2).clamp(min=1.0)
