"""Multi-head attention of one query per sample over its sequence, plain (POSO, Eq. 12) and personalized (Eq. 14).

B batch, L sequence length, D width, H heads, N folds, R rows of attention weights (heads, or folds x heads).

Neither form projects the sequence. Both maps are linear in it, so W^K is moved to the query, q . W^K x = (W^K^T q) . x,
and W^V behind the softmax, sum_l a_l W^V x_l = W^V (sum_l a_l x_l): N value projections then pass over the sequence
once.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from coldrank.modules.checks import check_lengths, check_sizes, check_width
from coldrank.modules.gate import PersonalizedGate, separate_draws
from coldrank.modules.linear import uniform_weight

Fold = Literal["qkv", "kv", "v", "none"]


class MultiheadAttention(nn.Module):
    """softmax(Q K^T / sqrt(head_dim)) V per head, concatenated (Eq. 12).

    Q = W^Q x_non, K = W^K X, V = W^V X, without biases (section 3).
    """

    def __init__(self, query_dim: int, sequence_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        check_sizes(query_dim=query_dim, sequence_dim=sequence_dim, heads=heads, head_dim=head_dim)
        self.query_dim, self.sequence_dim = query_dim, sequence_dim
        self.heads, self.head_dim = heads, head_dim
        self.query = nn.Linear(query_dim, heads * head_dim, bias=False)
        self.key = uniform_weight(heads, head_dim, sequence_dim, fan_in=sequence_dim)
        self.value = uniform_weight(heads, sequence_dim, head_dim, fan_in=sequence_dim)

    def forward(self, query: Tensor, sequence: Tensor, lengths: Tensor, pc: Tensor | None = None) -> Tensor:
        """query: float [B, query_dim], sequence: float [B, L, sequence_dim], lengths: int64 [B] in 0 .. L.

        Returns [B, H * head_dim]. Only positions 0 .. lengths - 1 are seen, whatever the others hold; an empty sequence
        yields zeros. pc is ignored. ValueError for lengths that are below 0 or above L.
        """
        check_width("query", query, self.query_dim)
        check_lengths(lengths, sequence)
        return self.read(self.query(query), sequence, lengths, pc)

    @torch.jit.export
    def read(self, q: Tensor, sequence: Tensor, lengths: Tensor, pc: Tensor | None = None) -> Tensor:
        """`forward` from q = W^Q x_non, float [B, H * head_dim], on. B may be a multiple of the number of sequences:
        each is then read by as many queries in turn."""
        sequence = without_padding(sequence, lengths)
        context = attend(self._weights(q, sequence, lengths), sequence, lengths)
        return _project(context, self.value).flatten(1)

    def weights(self, query: Tensor, sequence: Tensor, lengths: Tensor, pc: Tensor | None = None) -> Tensor:
        """Arguments of `forward` -> attention weights [B, H, L]: what `attention_weights` gives for Q W^K."""
        check_width("query", query, self.query_dim)
        check_lengths(lengths, sequence)
        return self._weights(self.query(query), without_padding(sequence, lengths), lengths)

    def _weights(self, q: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
        check_width("sequence", sequence, self.sequence_dim)
        probes = _project(q.view(q.shape[0], self.heads, self.head_dim), self.key)
        return attention_weights(probes / math.sqrt(self.head_dim), sequence, lengths)


class PosoMultiheadAttention(nn.Module):
    """C * softmax(Q (G^k(pc) * K)^T / sqrt(head_dim)) sum_i g(pc)_i V^(i) per head, concatenated: Eq. 14.

    C is inside each gate. fold: how far Q, K and V are personalized (the rows of Table 7, in its order):
        "qkv": N-fold Q, K and V; each fold attends on its own (Eq. 13). "kv": one Q, N-fold K and V. "v": one Q, K
        gated element-wise, N-fold V (Eq. 14, the paper's choice). "none": one Q, K and V gated element-wise.
    The gate of the folds is one number per fold and head; an element-wise gate has width H * head_dim and is the same
    at every position.

    After one seed it starts from the plain module's weights: each fold of Q and K is a copy, the folds of V are random
    matrices of 1/N the variance, given that they sum to the plain W^V. So with gates of 1 it equals the plain module up
    to rounding, while the folds of V differ (equal folds would get equal gates and equal gradients for ever).
    """

    def __init__(
        self,
        query_dim: int,
        sequence_dim: int,
        heads: int,
        head_dim: int,
        pc_dim: int,
        gate_hidden: int = 32,
        scale: float = 2.0,
        folds: int = 4,
        fold: Fold = "v",
    ) -> None:
        super().__init__()
        check_sizes(folds=folds)
        if fold not in ("qkv", "kv", "v", "none"):
            raise ValueError(f"fold is {fold!r}: it must be 'qkv', 'kv', 'v' or 'none'")
        plain = MultiheadAttention(query_dim, sequence_dim, heads, head_dim)
        query_folds = folds if fold == "qkv" else 1
        key_folds = folds if fold in ("qkv", "kv") else 1
        value_folds = folds if fold == "v" else 1  # per row of attention weights
        self.query_dim, self.sequence_dim, self.head_dim = query_dim, sequence_dim, head_dim
        self.query_folds, self.key_folds, self.value_folds = query_folds, key_folds, value_folds
        self.heads, self.gate_width = heads, head_dim if fold == "none" else 1
        self.query = plain.query
        self.query.weight = nn.Parameter(plain.query.weight.detach().repeat(query_folds, 1))
        self.query.out_features = query_folds * heads * head_dim
        self.key = nn.Parameter(plain.key.detach().repeat(key_folds, 1, 1))
        with separate_draws():
            self.value = nn.Parameter(_split(plain.value.detach(), key_folds, value_folds))
            self.value_gate = PersonalizedGate(
                pc_dim, key_folds * heads * value_folds * self.gate_width, gate_hidden, scale
            )
            self.key_gate = (
                PersonalizedGate(pc_dim, heads * head_dim, gate_hidden, scale) if fold in ("v", "none") else None
            )

    @torch.no_grad()
    @torch.jit.unused
    def take_value(self, value: Tensor) -> None:
        """Draws folds of V that sum to a plain module's `value` [H, D, head_dim], as at the start. Only for fold
        "v"."""
        with separate_draws():
            self.value.copy_(_split(value.cpu(), 1, self.value_folds))

    def forward(self, query: Tensor, sequence: Tensor, lengths: Tensor, pc: Tensor | None = None) -> Tensor:
        """Arguments and result of `MultiheadAttention.forward`; pc: float [B, pc_dim] is required."""
        check_width("query", query, self.query_dim)
        check_lengths(lengths, sequence)
        return self.read(self.query(query), sequence, lengths, pc)

    @torch.jit.export
    def read(self, q: Tensor, sequence: Tensor, lengths: Tensor, pc: Tensor | None = None) -> Tensor:
        """As `MultiheadAttention.read`; q: float [B, query_folds * H * head_dim], pc: [B, pc_dim], or [1, pc_dim] for
        all."""
        sequence = without_padding(sequence, lengths)
        context = attend(self._weights(q, sequence, lengths, pc), sequence, lengths)
        gates: Tensor = self.value_gate(pc)
        gates = gates.view(gates.shape[0], self.key_folds, self.heads, self.value_folds, self.gate_width)
        values = _project(context, self.value)
        values = values.reshape(q.shape[0], self.key_folds, self.heads, self.value_folds, self.head_dim)
        return (gates * values).sum((1, 3)).flatten(1)

    def weights(self, query: Tensor, sequence: Tensor, lengths: Tensor, pc: Tensor | None = None) -> Tensor:
        """Arguments of `forward` -> attention weights [B, key_folds * H, L]: those of fold 0's heads, then of fold
        1's."""
        check_width("query", query, self.query_dim)
        check_lengths(lengths, sequence)
        return self._weights(self.query(query), without_padding(sequence, lengths), lengths, pc)

    def _weights(self, q: Tensor, sequence: Tensor, lengths: Tensor, pc: Tensor | None) -> Tensor:
        check_width("sequence", sequence, self.sequence_dim)
        if self.key_gate is not None:
            q = q * self.key_gate(pc)  # Q . (G^k * K) = (Q * G^k) . K
        q = q.view(q.shape[0], self.query_folds, self.heads, self.head_dim).expand(-1, self.key_folds, -1, -1)
        probes = _project(q.flatten(1, 2), self.key)
        return attention_weights(probes / math.sqrt(self.head_dim), sequence, lengths)


def without_padding(sequence: Tensor, lengths: Tensor) -> Tensor:
    """Zeros at the positions past a sequence's length: NaN or infinity there would outlast a weight of 0, in the result
    and in the gradients. sequence: float [B, L, D], lengths: int64 [B] -> [B, L, D]."""
    padded = torch.arange(sequence.shape[1], device=sequence.device) >= lengths.unsqueeze(1)
    return sequence.masked_fill(padded.unsqueeze(2), 0.0)


def attention_weights(probes: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
    """softmax(probes . x)_l over the valid positions l < lengths; the others must be finite.

    probes: float [B, R, D], sequence: float [S, L, D], lengths: int64 [S] -> [B, R, L]; B is S or a multiple, with as
    many probes in turn for each sequence. An empty sequence keeps its first position through the softmax, which is then
    finite: `attend` sets its result to zero.
    """
    scores = _by_sequence(probes, sequence) @ sequence.transpose(1, 2)
    positions = torch.arange(sequence.shape[1], device=sequence.device)
    padded = positions >= lengths.clamp(min=1).unsqueeze(1)
    weights = torch.softmax(scores.masked_fill(padded.unsqueeze(1), -math.inf), -1)
    return weights.view(probes.shape[0], probes.shape[1], sequence.shape[1])


def attend(weights: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
    """sum_l weights_l x_l. weights: float [B, R, L], sequence: float [S, L, D], lengths: int64 [S] -> [B, R, D], B as
    for `attention_weights`; zeros, with zero gradients of any order, where lengths is 0."""
    read = (_by_sequence(weights, sequence) @ sequence) * (lengths > 0).to(sequence.dtype)[:, None, None]
    return read.view(weights.shape[0], weights.shape[1], sequence.shape[2])


def _by_sequence(x: Tensor, sequence: Tensor) -> Tensor:
    """x: [B, R, D] -> [S, B / S * R, D]: what is of one sequence, together."""
    count = sequence.shape[0]
    return x.reshape(count, x.shape[0] // max(1, count) * x.shape[1], x.shape[2])


def _project(x: Tensor, weight: Tensor) -> Tensor:
    """x: [B, R, D], one matrix per row, weight: [R, D, out] -> [B, R, out]."""
    return torch.bmm(x.transpose(0, 1), weight).transpose(0, 1)


def _split(weight: Tensor, key_folds: int, value_folds: int) -> Tensor:
    """N = key_folds * value_folds (one of them is 1) matrices that sum to `weight` [H, D, out].

    Each has 1 / N the variance of `weight`: independent draws d_i of that variance, given their
    sum W, are W / N + d_i - mean(d).
    Returns [key_folds * H, D, value_folds * out], the layout that needs one product per row of attention weights.
    """
    folds = key_folds * value_folds
    draws = torch.empty(folds, *weight.shape).uniform_(-1, 1) / math.sqrt(weight.shape[1])
    parts = weight / folds + (draws - draws.mean(0)) / math.sqrt(folds)
    if key_folds > 1:
        return parts.flatten(0, 1)
    return parts.permute(1, 2, 0, 3).flatten(2)
