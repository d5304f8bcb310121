"""Planted teachers: the true logits come from POSO's own equations, and new users have gates of their own.

n samples, D width, L sequence length, H heads or hidden units, N folds, E experts, T tasks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

NEW_BUCKETS, BUCKETS = 4, 12
# new [n] -> inputs and logits [n, T]
Draw = Callable[[Tensor, Generator], tuple[tuple[Tensor, ...], Tensor]]


@dataclass(kw_only=True, slots=True)
class Samples:
    """inputs: tensors of n rows. avc: bucket of the view count, below NEW_BUCKETS for new users. labels: [n, T]."""

    inputs: tuple[Tensor, ...]
    avc: Tensor
    new: Tensor
    labels: Tensor


def sample(draw: Draw, rows: int, new_rate: float, seed: int, scale: float = 3.0) -> Samples:
    """Labels are Bernoulli in the logits, standardised per cohort and task and multiplied by `scale`."""
    generator = torch.Generator().manual_seed(seed)
    new = torch.rand(rows, generator=generator) < new_rate
    within = torch.rand(rows, generator=generator)
    avc = torch.where(new, within * NEW_BUCKETS, NEW_BUCKETS + within * (BUCKETS - NEW_BUCKETS)).long()
    avc = torch.where(new, avc.clamp(max=NEW_BUCKETS - 1), avc.clamp(max=BUCKETS - 1))  # a float just below 1 rounds up
    inputs, logits = draw(new, generator)
    for cohort in (new, ~new):
        centred = logits[cohort] - logits[cohort].mean(0)
        logits[cohort] = scale * centred / centred.std(0)
    labels = (torch.rand(logits.shape, generator=generator) < torch.sigmoid(logits)).float()
    return Samples(inputs=inputs, avc=avc, new=new, labels=labels)


def mlp_teacher(seed: int, width: int = 32, hidden: int = 128) -> Draw:
    """v . (g(cohort) * relu(W x + b)), Eq. 11."""
    g = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(width, hidden, generator=g) / width**0.5, 0.5 * torch.randn(hidden, generator=g)
    out, gates = torch.randn(hidden, 1, generator=g), _gates(hidden, g)

    def draw(new: Tensor, generator: Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        x = torch.randn(len(new), width, generator=generator)
        return (x,), (torch.relu(x @ weight + bias) * gates[new.long()]) @ out

    return draw


def attention_teacher(seed: int, width: int = 8, length: int = 5, heads: int = 4, head_dim: int = 4) -> Draw:
    """u . softmax(Q (G^k * K)^T / sqrt(head_dim)) sum_i g_i V^(i), Eq. 14, four folds; G^k is 1 for regular users."""
    g = torch.Generator().manual_seed(seed)
    size = heads * head_dim
    query, key = (torch.randn(width, size, generator=g) / width**0.5 for _ in range(2))
    folds, out = torch.randn(4, heads, width, head_dim, generator=g), torch.randn(size, 1, generator=g)
    fold_gates = torch.stack([_gates(4, g) for _ in range(heads)], 1)
    value = torch.einsum("chn,nhsd->chsd", fold_gates, folds)
    key_gates = torch.stack([torch.ones(size), _gates(size, g)[1]])

    def draw(new: Tensor, generator: Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        n = len(new)
        x, sequence = (torch.randn(*shape, generator=generator) for shape in ((n, width), (n, length, width)))
        lengths = torch.randint(1, length + 1, (n,), generator=generator)
        q = (x @ query * key_gates[new.long()]).view(n, heads, head_dim)
        k = (sequence @ key).view(n, length, heads, head_dim)
        scores = torch.einsum("nhd,nlhd->nhl", q, k) / head_dim**0.5
        padded = torch.arange(length) >= lengths[:, None]
        context = torch.softmax(scores.masked_fill(padded[:, None], -torch.inf), -1) @ sequence
        regular_heads, new_heads = (torch.einsum("nhs,hsd->nhd", context, v) for v in value)
        return (x, sequence, lengths), torch.where(new[:, None, None], new_heads, regular_heads).flatten(1) @ out

    return draw


def mmoe_teacher(seed: int, width: int = 8, hidden: int = 12, experts: int = 4, dim: int = 16, tasks: int = 2) -> Draw:
    """v^t . sum_i g_i(cohort) softmax(W^t x)_i e^(i)(x), Eq. 17-18."""
    g = torch.Generator().manual_seed(seed)
    first = torch.randn(experts, width, hidden, generator=g) / width**0.5
    first_bias = 0.5 * torch.randn(experts, 1, hidden, generator=g)
    second = torch.randn(experts, hidden, dim, generator=g) / hidden**0.5
    second_bias = 0.1 * torch.randn(experts, 1, dim, generator=g)
    route = 2 * torch.randn(width, tasks, experts, generator=g) / width**0.5
    out, gates = torch.randn(tasks, dim, generator=g), _gates(experts, g)

    def draw(new: Tensor, generator: Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        x = torch.randn(len(new), width, generator=generator)
        outputs = torch.relu(torch.relu(x @ first + first_bias) @ second + second_bias)
        weights = torch.softmax(torch.einsum("nd,dte->nte", x, route), -1) * gates[new.long()][:, None]
        return (x,), torch.einsum("nte,eno,to->nt", weights, outputs, out)

    return draw


def _gates(units: int, generator: Generator) -> Tensor:
    """Gates of 0 or 2 for regular (row 0) and new users (row 1): half the units on, half of those in common."""
    quarters = torch.tensor([[2.0, 2.0, 0.0, 0.0], [2.0, 0.0, 2.0, 0.0]]).repeat(1, units // 4)
    return quarters[:, torch.randperm(units, generator=generator)]
