"""Multi-head attention of one query per sample over its sequence, plain (POSO, Eq. 12) and personalized (Eq. 14).

B batch, L sequence length, D width, H heads, N folds, R rows of attention weights (heads, or folds x heads).

Neither form projects the sequence. Both maps are linear in it, so W^K is moved to the query, q . W^K x = (W^K^T q) . x,
and W^V behind the softmax, sum_l a_l W^V x_l = W^V (sum_l a_l x_l): N value projections then pass over the sequence
once. `attended.py` has what passes over it.

A sequence may be given in parts: its first columns as `sequence`, the others in `beside`, float [B, L, D'] each, and
what is added at each position of all samples as `positions`, float [L, D].
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from coldrank.modules.attended import attended, attention_weights, joined, without_padding
from coldrank.modules.checks import check_lengths, check_sizes, check_width
from coldrank.modules.gate import PersonalizedGate, separate_draws
from coldrank.modules.linear import uniform_weight

Fold = Literal["qkv", "kv", "v", "none"]


class MultiheadAttention(nn.Module):
    """softmax(Q K^T / sqrt(head_dim)) V per head, concatenated (Eq. 12).

    Q = W^Q x_non, K = W^K X, V = W^V X, without biases (section 3).
    """

    def __init__(
        self, query_dim: int, sequence_dim: int, heads: int, head_dim: int, *, finite_padding: bool = False
    ) -> None:
        """finite_padding: whether what lies past a sequence's end is always finite; else zeros are put there first."""
        super().__init__()
        check_sizes(query_dim=query_dim, sequence_dim=sequence_dim, heads=heads, head_dim=head_dim)
        self.query_dim, self.sequence_dim = query_dim, sequence_dim
        self.heads, self.head_dim, self.finite_padding = heads, head_dim, finite_padding
        self.query = nn.Linear(query_dim, heads * head_dim, bias=False)
        self.key = uniform_weight(heads, head_dim, sequence_dim, fan_in=sequence_dim)
        self.value = uniform_weight(heads, sequence_dim, head_dim, fan_in=sequence_dim)

    def forward(
        self,
        query: Tensor,
        sequence: Tensor,
        lengths: Tensor,
        pc: Tensor | None = None,
        beside: list[Tensor] | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """query: float [B, query_dim], sequence: float [B, L, sequence_dim], with `beside` fewer columns, lengths:
        int64 [B] in 0 .. L.

        Returns [B, H * head_dim]. Only positions 0 .. lengths - 1 are seen, whatever the others hold; an empty sequence
        yields zeros. pc is ignored. ValueError for lengths that are below 0 or above L.
        """
        check_width("query", query, self.query_dim)
        check_lengths(lengths, sequence)
        return self.read(self.query(query), sequence, lengths, pc, beside, positions)

    @torch.jit.export
    def read(
        self,
        q: Tensor,
        sequence: Tensor,
        lengths: Tensor,
        pc: Tensor | None = None,
        beside: list[Tensor] | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """`forward` from q = W^Q x_non, float [B, H * head_dim], on. B may be a multiple of the number of sequences:
        each is then read by as many queries in turn."""
        parts = _parts(sequence, beside, lengths, self.sequence_dim, self.finite_padding)
        return _project(attended(self._probes(q), parts, positions, lengths), self.value).flatten(1)

    def weights(
        self,
        query: Tensor,
        sequence: Tensor,
        lengths: Tensor,
        pc: Tensor | None = None,
        beside: list[Tensor] | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Arguments of `forward` -> attention weights [B, H, L]: what `attention_weights` gives for Q W^K."""
        check_width("query", query, self.query_dim)
        check_lengths(lengths, sequence)
        parts = _parts(sequence, beside, lengths, self.sequence_dim, self.finite_padding)
        return attention_weights(self._probes(self.query(query)), joined(parts, positions), lengths)

    def _probes(self, q: Tensor) -> Tensor:
        q = (q / math.sqrt(self.head_dim)).view(q.shape[0], self.heads, self.head_dim)
        return _project(q, self.key)


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
        *,
        finite_padding: bool = False,
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
        self.heads, self.gate_width, self.finite_padding = heads, head_dim if fold == "none" else 1, finite_padding
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

    def forward(
        self,
        query: Tensor,
        sequence: Tensor,
        lengths: Tensor,
        pc: Tensor | None = None,
        beside: list[Tensor] | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Arguments and result of `MultiheadAttention.forward`; pc: float [B, pc_dim] is required."""
        check_width("query", query, self.query_dim)
        check_lengths(lengths, sequence)
        return self.read(self.query(query), sequence, lengths, pc, beside, positions)

    @torch.jit.export
    def read(
        self,
        q: Tensor,
        sequence: Tensor,
        lengths: Tensor,
        pc: Tensor | None = None,
        beside: list[Tensor] | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """As `MultiheadAttention.read`; q: float [B, query_folds * H * head_dim], pc: [B, pc_dim], or [1, pc_dim] for
        all."""
        parts = _parts(sequence, beside, lengths, self.sequence_dim, self.finite_padding)
        context = attended(self._probes(q, pc), parts, positions, lengths)
        gates: Tensor = self.value_gate(pc)
        gates = gates.view(gates.shape[0], self.key_folds, self.heads, self.value_folds, self.gate_width)
        values = _project(context, self.value)
        values = values.reshape(q.shape[0], self.key_folds, self.heads, self.value_folds, self.head_dim)
        return (gates * values).sum((1, 3)).flatten(1)

    def weights(
        self,
        query: Tensor,
        sequence: Tensor,
        lengths: Tensor,
        pc: Tensor | None = None,
        beside: list[Tensor] | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Arguments of `forward` -> attention weights [B, key_folds * H, L]: those of fold 0's heads, then of fold
        1's."""
        check_width("query", query, self.query_dim)
        check_lengths(lengths, sequence)
        parts = _parts(sequence, beside, lengths, self.sequence_dim, self.finite_padding)
        return attention_weights(self._probes(self.query(query), pc), joined(parts, positions), lengths)

    def _probes(self, q: Tensor, pc: Tensor | None) -> Tensor:
        if self.key_gate is not None:
            q = q * self.key_gate(pc)  # Q . (G^k * K) = (Q * G^k) . K
        q = (q / math.sqrt(self.head_dim)).view(q.shape[0], self.query_folds, self.heads, self.head_dim)
        return _project(q.expand(-1, self.key_folds, -1, -1).flatten(1, 2), self.key)


def _parts(
    sequence: Tensor, beside: list[Tensor] | None, lengths: Tensor, width: int, finite_padding: bool
) -> list[Tensor]:
    """What is attended to, with nothing past its end that a weight of 0 would not silence."""
    parts = [sequence]
    if beside is not None:
        parts += beside
    if sum([part.shape[2] for part in parts]) != width:
        raise ValueError(f"sequence has shape {list(sequence.shape)}: all of it must be [batch, ..., {width}]")
    if finite_padding:
        return parts
    return [without_padding(part, lengths) for part in parts]


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
