"""Edges: empty and padded sequences in values and derivatives, fold weights, sizes refused at construction."""

from collections.abc import Callable

import pytest
import torch
from cases import GATE, double, randomize, sequence_inputs
from torch import nn

from coldrank.modules import MLP, MMoE, MultiheadAttention, PersonalizedGate, PosoMultiheadAttention, PosoTowers

SIZES = {"query_dim": 5, "sequence_dim": 3, "heads": 2, "head_dim": 3}
FOLDS = ["qkv", "kv", "v", "none"]


def modules() -> list[nn.Module]:
    torch.manual_seed(0)
    personalized = [PosoMultiheadAttention(**SIZES, **GATE, folds=3, fold=fold) for fold in FOLDS]  # type: ignore[arg-type]
    return [randomize(module) for module in (MultiheadAttention(**SIZES), *personalized)]


def test_empty_sequences_are_zeros_to_the_second_derivative() -> None:
    for module in modules():
        query, sequence, _ = double(sequence_inputs(3))
        leaves = [x.requires_grad_() for x in (query, sequence, torch.randn(3, 3).double())]
        y = module(query, sequence, torch.zeros(3, dtype=torch.int64), leaves[2])
        assert torch.equal(y, torch.zeros(3, 6).double())
        parameters = [*module.parameters(), *leaves]
        first = torch.autograd.grad(y.sum() + y.square().sum(), parameters, create_graph=True, materialize_grads=True)
        second = torch.autograd.grad(sum(g.square().sum() + g.sum() for g in first), parameters, materialize_grads=True)  # type: ignore[arg-type]
        assert all(g.abs().max() == 0 for g in (*first, *second))


def test_second_derivatives_beside_an_empty_sequence_match_finite_differences() -> None:
    for module in modules():
        query, sequence, lengths = double(sequence_inputs(2))
        pc = torch.randn(2, 3).double()
        leaves = (query.requires_grad_(), sequence[:, :2].detach().requires_grad_())
        assert torch.autograd.gradgradcheck(
            lambda q, s: module(q, s, lengths.clamp(max=2), pc),  # noqa: B023
            leaves,
            fast_mode=True,
        )


def test_what_lies_in_the_padding_does_not_matter() -> None:
    for module in modules():
        query, sequence, lengths = double(sequence_inputs(5))
        pc = torch.randn(5, 3).double()
        padded = torch.arange(4) >= lengths[:, None]
        other = torch.where(padded[:, :, None], 1e6 * torch.ones_like(sequence), sequence)
        assert torch.equal(module(query, sequence, lengths, pc), module(query, other, lengths, pc))
        longer = torch.cat([sequence, sequence], 1)
        torch.testing.assert_close(module(query, sequence, lengths, pc), module(query, longer, lengths, pc))


@pytest.mark.parametrize("length", [0, 1])
def test_shortest_sequences(length: int) -> None:
    """A sequence of one position is attended to in full: the output is its gated value whatever the query."""
    for module in modules():
        query, sequence, _ = double(sequence_inputs(3))
        lengths, pc = torch.full((3,), length), torch.randn(3, 3).double()
        y = module(query, sequence[:, :length], lengths, pc)
        assert y.shape == (3, 6) and y.isfinite().all() and (y == 0).all() == (length == 0)
        torch.testing.assert_close(y, module(-query, sequence[:, :length], lengths, pc))


def test_folds_of_v_sum_to_the_plain_v_and_have_its_variance_over_n() -> None:
    sizes = {"query_dim": 5, "sequence_dim": 64, "heads": 4, "head_dim": 32}
    torch.manual_seed(0)
    plain = MultiheadAttention(**sizes)
    for fold in ("v", "kv"):
        torch.manual_seed(0)
        poso = PosoMultiheadAttention(**sizes, **GATE, folds=4, fold=fold)
        parts = poso.value.view(4, 64, 4, 32).transpose(1, 2) if fold == "v" else poso.value.view(4, 4, 64, 32)
        axis = 1 if fold == "v" else 0
        torch.testing.assert_close(parts.sum(axis), plain.value)
        ratio = parts.var() / plain.value.var()
        assert abs(ratio - 1 / 4) < 0.01


def test_gates_built_in_succession_differ() -> None:
    torch.manual_seed(0)
    first, second = PosoTowers(5, (4,), 2, **GATE), PosoTowers(5, (4,), 2, **GATE)
    assert not torch.equal(first.gates[0].hidden.weight, second.gates[0].hidden.weight)  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MLP(0, (4,)), "in_dim is 0: it must be at least 1"),
        (lambda: MLP(3, (4, -1)), r"hidden\[1\] is -1: it must be at least 1"),
        (lambda: MLP(3, ()), "hidden is empty"),
        (lambda: MMoE(3, 0, (4,), 1), "experts is 0: it must be at least 1"),
        (lambda: MMoE(3, 2, (4,), 0), "tasks is 0: it must be at least 1"),
        (lambda: PosoTowers(3, (), 2, **GATE), "hidden is empty"),
        (lambda: MultiheadAttention(3, 3, 0, 4), "heads is 0: it must be at least 1"),
        (lambda: PosoMultiheadAttention(3, 3, 1, 4, 3, folds=0), "folds is 0: it must be at least 1"),
        (lambda: PosoMultiheadAttention(3, 3, 1, 4, 3, fold="k"), "fold is 'k': it must be 'qkv', 'kv', 'v' or 'none'"),  # type: ignore[arg-type]
        (lambda: PersonalizedGate(0, 4), "pc_dim is 0: it must be at least 1"),
        (lambda: PersonalizedGate(3, 4, hidden=0), "gate_hidden is 0: it must be at least 1"),
        (lambda: PersonalizedGate(3, 4, scale=0.0), r"scale is 0.0: it must be above 0"),
    ],
)
def test_sizes_refused(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
