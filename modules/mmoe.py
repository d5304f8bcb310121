"""Multi-gate mixture of experts, plain (POSO, Eq. 1-2) and personalized (Eq. 17-18).

B batch, D width, E experts, T tasks.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from coldrank.modules.checks import check_hidden, check_sizes, check_width
from coldrank.modules.dropout import Dropout
from coldrank.modules.gate import PersonalizedGate, separate_draws
from coldrank.modules.linear import GroupedLinear


class Experts(nn.Module):
    """E MLPs of equal shape over one input: the first layers are one matrix product, deeper ones batched."""

    def __init__(self, in_dim: int, experts: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        widths = tuple(hidden)
        check_sizes(in_dim=in_dim, experts=experts)
        check_hidden(widths)
        self.shape = [experts, widths[0]]
        self.first = nn.Linear(in_dim, experts * widths[0])
        self.deeper = nn.ModuleList(GroupedLinear(experts, a, b) for a, b in pairwise(widths))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: float [B, in_dim] -> [B, E, hidden[-1]]."""
        return self.deepen(self.first(x))

    @torch.jit.export
    def deepen(self, x: Tensor) -> Tensor:
        """`forward` from the first layers' outputs on, float [B, E * hidden[0]]."""
        x = self.dropout(torch.relu(x)).unflatten(1, self.shape)
        for layer in self.deeper:
            x = self.dropout(torch.relu(layer(x)))
        return x


class MMoE(nn.Module):
    """For each task t: sum over experts i of softmax(W^t x)_i e^(i)(x), Eq. 1-2."""

    def __init__(self, in_dim: int, experts: int, hidden: Sequence[int], tasks: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.experts = Experts(in_dim, experts, hidden, dropout)
        self.task_gate = _task_gate(in_dim, experts, tasks)
        self.shape = [tasks, experts]

    def forward(self, x: Tensor, pc: Tensor | None = None) -> Tensor:
        """x: float [B, in_dim] -> [B, T, hidden[-1]]; pc is ignored."""
        check_width("x", x, self.in_dim)
        return self.mix(self.experts.first(x), self.task_gate(x), pc)

    @torch.jit.export
    def mix(self, first: Tensor, gate: Tensor, pc: Tensor | None = None) -> Tensor:
        """`forward` from what is linear in x on: the experts' first layers, [B, E * hidden[0]], and W^t x, [B, T *
        E]."""
        return _softmax(gate, self.shape) @ self.experts.deepen(first)

    def expert_weights(self, x: Tensor, pc: Tensor | None = None) -> Tensor:
        """x: float [B, in_dim] -> `task_weights`, [B, T, E]; pc is ignored."""
        return self.task_weights(x)

    def task_weights(self, x: Tensor) -> Tensor:
        """x: float [B, in_dim] -> softmax(W^t x) over the experts, [B, T, E]."""
        return _softmax(self.task_gate(x), self.shape)


class PosoMMoE(nn.Module):
    """For each task t: sum over experts i of C g(pc)_i softmax(W^t x)_i e^(i)(x), Eq. 17-18.

    One scalar gate per expert, shared by the tasks. The products are not renormalised: C keeps their scale.
    """

    def __init__(
        self,
        in_dim: int,
        experts: int,
        hidden: Sequence[int],
        tasks: int,
        pc_dim: int,
        gate_hidden: int = 32,
        scale: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.experts = Experts(in_dim, experts, hidden, dropout)
        self.task_gate = _task_gate(in_dim, experts, tasks)
        self.shape = [tasks, experts]
        with separate_draws():
            self.gate = PersonalizedGate(pc_dim, experts, gate_hidden, scale)

    def forward(self, x: Tensor, pc: Tensor | None = None) -> Tensor:
        """x: float [B, in_dim], pc: float [B, pc_dim] (required) -> [B, T, hidden[-1]]."""
        check_width("x", x, self.in_dim)
        return self.mix(self.experts.first(x), self.task_gate(x), pc)

    @torch.jit.export
    def mix(self, first: Tensor, gate: Tensor, pc: Tensor | None = None) -> Tensor:
        """As `MMoE.mix`; pc: float [B, pc_dim], or [1, pc_dim] for all (required)."""
        return self._gated(gate, pc) @ self.experts.deepen(first)

    def expert_weights(self, x: Tensor, pc: Tensor | None = None) -> Tensor:
        """x: float [B, in_dim], pc: float [B, pc_dim] (required) -> C g(pc)_i softmax(W^t x)_i, [B, T, E]."""
        return self._gated(self.task_gate(x), pc)

    def _gated(self, gate: Tensor, pc: Tensor | None) -> Tensor:
        weights = _softmax(gate, self.shape)
        gates: Tensor = self.gate(pc)
        return weights * gates.unsqueeze(1)

    def task_weights(self, x: Tensor) -> Tensor:
        """x: float [B, in_dim] -> softmax(W^t x) over the experts, before the gates, [B, T, E]."""
        return _softmax(self.task_gate(x), self.shape)


def _softmax(gate: Tensor, shape: list[int]) -> Tensor:
    """W^t x, float [B, T * E], shape: T and E -> softmax over the experts, [B, T, E]. Along a short last dimension
    torch's takes ten times as long as with the samples side by side in memory."""
    by_expert = gate.t().contiguous().view(shape[0], shape[1], gate.shape[0])
    return torch.softmax(by_expert, 1).permute(2, 0, 1).contiguous()


def _task_gate(in_dim: int, experts: int, tasks: int) -> nn.Linear:
    check_sizes(tasks=tasks)
    return nn.Linear(in_dim, tasks * experts, bias=False)
