"""Multi-layer perceptrons, plain and personalized (POSO, Eq. 11).

B batch, D width.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from coldrank.modules.checks import check_hidden, check_sizes, check_width
from coldrank.modules.dropout import Dropout
from coldrank.modules.gate import PersonalizedGate, separate_draws


class MLP(nn.Module):
    """relu(W x + b), stacked: one layer per width in `hidden`, each followed by dropout."""

    def __init__(self, in_dim: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.layers = _layers(in_dim, hidden)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, pc: Tensor | None = None) -> Tensor:
        """x: float [B, in_dim] -> [B, hidden[-1]]; pc is ignored."""
        check_width("x", x, self.in_dim)
        for layer in self.layers:
            x = self.dropout(torch.relu(layer(x)))
        return x


class PosoMLP(nn.Module):
    """C * g(pc) * relu(W x + b), stacked: Eq. 11. Every layer has a gate of its own, all fed by the same PC."""

    def __init__(
        self,
        in_dim: int,
        hidden: Sequence[int],
        pc_dim: int,
        gate_hidden: int = 32,
        scale: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.layers = _layers(in_dim, hidden)
        self.dropout = Dropout(dropout)
        with separate_draws():
            self.gates = nn.ModuleList(PersonalizedGate(pc_dim, width, gate_hidden, scale) for width in hidden)

    def forward(self, x: Tensor, pc: Tensor | None = None) -> Tensor:
        """x: float [B, in_dim], pc: float [B, pc_dim] (required) -> [B, hidden[-1]]."""
        check_width("x", x, self.in_dim)
        for layer, gate in zip(self.layers, self.gates):  # noqa: B905 (TorchScript knows no strict=)
            x = self.dropout(gate(pc) * torch.relu(layer(x)))
        return x


def _layers(in_dim: int, hidden: Sequence[int]) -> nn.ModuleList:
    widths = (in_dim, *hidden)
    check_sizes(in_dim=in_dim)
    check_hidden(widths[1:])
    return nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
