"""Task towers: one MLP per task from its own representation to one logit, plain and personalized (POSO, Fig. 3a).

B batch, D width, T tasks.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from coldrank.modules.checks import check_hidden, check_sizes, check_width
from coldrank.modules.dropout import Dropout
from coldrank.modules.gate import PersonalizedGate, separate_draws
from coldrank.modules.linear import GroupedLinear


class Towers(nn.Module):
    """h^t of Eq. 3: layers of relu(W x + b), then one linear map to a logit. `hidden` may be empty."""

    def __init__(self, in_dim: int, hidden: Sequence[int], tasks: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.layers, self.logit = _layers(in_dim, hidden, tasks)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, pc: Tensor | None = None) -> Tensor:
        """x: float [B, T, in_dim] -> logits [B, T]; pc is ignored."""
        check_width("x", x, self.in_dim)
        for layer in self.layers:
            x = self.dropout(torch.relu(layer(x)))
        logits: Tensor = self.logit(x)
        return logits.squeeze(-1)


class PosoTowers(nn.Module):
    """Towers whose activations are personalized (Eq. 11): each task and layer has gates of its own; the logit has none.

    The gates of one layer share the hidden layer of their gating network between the tasks.
    """

    def __init__(
        self,
        in_dim: int,
        hidden: Sequence[int],
        tasks: int,
        pc_dim: int,
        gate_hidden: int = 32,
        scale: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.layers, self.logit = _layers(in_dim, hidden, tasks, at_least=1)
        self.dropout = Dropout(dropout)
        with separate_draws():
            self.gates = nn.ModuleList(PersonalizedGate(pc_dim, tasks * width, gate_hidden, scale) for width in hidden)

    def forward(self, x: Tensor, pc: Tensor | None = None) -> Tensor:
        """x: float [B, T, in_dim], pc: float [B, pc_dim], or [1, pc_dim] for all (required) -> logits [B, T]."""
        check_width("x", x, self.in_dim)
        for layer, gate in zip(self.layers, self.gates):  # noqa: B905 (TorchScript knows no strict=)
            active = torch.relu(layer(x))
            x = self.dropout(gate(pc).unflatten(1, active.shape[1:]) * active)
        logits: Tensor = self.logit(x)
        return logits.squeeze(-1)


def _layers(in_dim: int, hidden: Sequence[int], tasks: int, at_least: int = 0) -> tuple[nn.ModuleList, GroupedLinear]:
    widths = (in_dim, *hidden)
    check_sizes(in_dim=in_dim, tasks=tasks)
    check_hidden(widths[1:], at_least)
    layers = nn.ModuleList(GroupedLinear(tasks, a, b) for a, b in pairwise(widths))
    return layers, GroupedLinear(tasks, widths[-1], 1)
