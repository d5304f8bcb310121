"""Linear maps: plain, personalized (POSO, Eq. 10), and grouped (one matrix per group, in one batched product).

B batch, D width, G groups.
"""

import math

import torch
from torch import Tensor, nn

from coldrank.modules.checks import check_sizes, check_width
from coldrank.modules.gate import PersonalizedGate, separate_draws


class Linear(nn.Module):
    """W x + b."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        check_sizes(in_dim=in_dim, out_dim=out_dim)
        self.in_dim = in_dim
        self.linear = nn.Linear(in_dim, out_dim)

    def forward(self, x: Tensor, pc: Tensor | None = None) -> Tensor:
        """x: float [B, in_dim] -> [B, out_dim]; pc is ignored."""
        check_width("x", x, self.in_dim)
        y: Tensor = self.linear(x)
        return y


class PosoLinear(nn.Module):
    """C * g(pc) * (W x + b), element-wise: Eq. 10."""

    def __init__(self, in_dim: int, out_dim: int, pc_dim: int, gate_hidden: int = 32, scale: float = 2.0) -> None:
        super().__init__()
        check_sizes(in_dim=in_dim, out_dim=out_dim)
        self.in_dim = in_dim
        self.linear = nn.Linear(in_dim, out_dim)
        with separate_draws():
            self.gate = PersonalizedGate(pc_dim, out_dim, gate_hidden, scale)

    def forward(self, x: Tensor, pc: Tensor | None = None) -> Tensor:
        """x: float [B, in_dim], pc: float [B, pc_dim] (required) -> [B, out_dim]."""
        check_width("x", x, self.in_dim)
        y: Tensor = self.gate(pc) * self.linear(x)
        return y


class GroupedLinear(nn.Module):
    """W_g x_g + b_g for each group g, as one batched product. Each group starts as an `nn.Linear` of its own."""

    def __init__(self, groups: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        check_sizes(groups=groups, in_dim=in_dim, out_dim=out_dim)
        self.weight = uniform_weight(groups, in_dim, out_dim, fan_in=in_dim)
        self.bias = uniform_weight(groups, 1, out_dim, fan_in=in_dim)

    def forward(self, x: Tensor) -> Tensor:
        """x: float [B, G, in_dim] -> [B, G, out_dim]."""
        return torch.baddbmm(self.bias, x.transpose(0, 1), self.weight).transpose(0, 1)


def uniform_weight(*shape: int, fan_in: int) -> nn.Parameter:
    """A parameter drawn as `nn.Linear` draws its own: uniform within 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
