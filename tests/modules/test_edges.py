"""Edges: empty and padded sequences in values and derivatives, fold weights, sizes refused at construction."""

from collections.abc import Callable

import pytest
import torch
from cases import GATE, LENGTH, PC, SEQUENCE, double, randomize, sequence_inputs
from torch import nn

from coldrank.modules import (
    MLP,
    GroupedLinear,
    Linear,
    MetaCF,
    MMoE,
    MultiheadAttention,
    Mwuf,
    PersonalizedGate,
    PosoLinear,
    PosoMultiheadAttention,
    PosoTowers,
    Towers,
)
from coldrank.modules.attended import attend
from coldrank.modules.cvar import Cvar
from coldrank.modules.dropout import Dropout

SIZES = {"query_dim": 5, "sequence_dim": SEQUENCE, "heads": 2, "head_dim": 3}
FOLDS = ["qkv", "kv", "v", "none"]


def modules() -> list[nn.Module]:
    torch.manual_seed(0)
    personalized = [PosoMultiheadAttention(**SIZES, **GATE, folds=4, fold=fold) for fold in FOLDS]  # type: ignore[arg-type]
    return [randomize(module) for module in (MultiheadAttention(**SIZES), *personalized)]


def test_empty_sequences_are_zeros_to_the_second_derivative() -> None:
    for module in modules():
        query, sequence, _ = double(sequence_inputs(3))
        leaves = [x.requires_grad_() for x in (query, sequence, torch.randn(3, PC).double())]
        y = module(query, sequence, torch.zeros(3, dtype=torch.int64), leaves[2])
        assert torch.equal(y, torch.zeros(3, 6).double())
        parameters = [*module.parameters(), *leaves]
        first = torch.autograd.grad(y.sum() + y.square().sum(), parameters, create_graph=True, materialize_grads=True)
        second = torch.autograd.grad(sum(g.square().sum() + g.sum() for g in first), parameters, materialize_grads=True)  # type: ignore[arg-type]
        assert all(g.abs().max() == 0 for g in (*first, *second))


def test_second_derivatives_beside_an_empty_sequence_match_finite_differences() -> None:
    for module in modules():
        query, sequence, lengths = double(sequence_inputs(2))
        pc = torch.randn(2, PC).double()
        leaves = (query.requires_grad_(), sequence[:, :2].detach().requires_grad_())
        assert torch.autograd.gradgradcheck(
            lambda q, s: module(q, s, lengths.clamp(max=2), pc),  # noqa: B023
            leaves,
            fast_mode=True,
        )


def test_what_lies_in_the_padding_does_not_matter() -> None:
    for module in modules():
        query, sequence, lengths = double(sequence_inputs(5))
        pc = torch.randn(5, PC).double()
        padded = torch.arange(LENGTH) >= lengths[:, None]
        other = torch.where(padded[:, :, None], 1e6 * torch.ones_like(sequence), sequence)
        assert torch.equal(module(query, sequence, lengths, pc), module(query, other, lengths, pc))
        longer = torch.cat([sequence, sequence], 1)
        torch.testing.assert_close(module(query, sequence, lengths, pc), module(query, longer, lengths, pc))


@pytest.mark.parametrize("length", [0, 1])
def test_shortest_sequences(length: int) -> None:
    """A sequence of one position is attended to in full: the output is its gated value whatever the query."""
    for module in modules():
        query, sequence, _ = double(sequence_inputs(3))
        lengths, pc = torch.full((3,), length), torch.randn(3, PC).double()
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


def test_an_empty_sequence_reads_nothing_whatever_its_weights_and_values() -> None:
    weights, sequence = torch.full((3, 2, 4), 0.25), torch.ones(3, 4, 5)
    read = attend(weights, sequence, torch.tensor([0, 4, 1]))
    assert torch.equal(read, torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1).expand(3, 2, 5))


def test_the_weights_are_those_of_the_scores_within_the_length() -> None:
    module = modules()[0]
    query, sequence, lengths = double(sequence_inputs(5))
    weights = module.weights(query, sequence, lengths)  # type: ignore[operator]
    assert weights.shape == (5, 2, LENGTH)
    for b in range(1, 5):
        for h in range(2):
            keys = sequence[b, : lengths[b]] @ module.key[h].T  # type: ignore[index]
            scores = torch.exp(keys @ (module.query.weight @ query[b])[3 * h : 3 * h + 3] / 3**0.5)  # type: ignore[operator, union-attr]
            torch.testing.assert_close(weights[b, h, : lengths[b]], scores / scores.sum())
            assert not weights[b, h, lengths[b] :].any()


def test_several_queries_in_turn_read_one_sequence() -> None:
    for module in modules():
        _, sequence, lengths = double(sequence_inputs(4))
        queries, pc = torch.randn(12, 5).double(), torch.randn(12, PC).double()
        found = module.read(module.query(queries), sequence, lengths, pc)  # type: ignore[operator]
        expected = module(queries, sequence.repeat_interleave(3, 0), lengths.repeat_interleave(3), pc)
        torch.testing.assert_close(found, expected)


def test_fresh_weights_are_uniform_within_one_over_the_root_of_the_inputs() -> None:
    torch.manual_seed(0)
    attention = MultiheadAttention(query_dim=5, sequence_dim=64, heads=4, head_dim=9)
    grouped = GroupedLinear(200, 25, 7)
    for weight, fan_in in ((attention.key, 64), (attention.value, 64), (grouped.weight, 25), (grouped.bias, 25)):
        bound, weight = fan_in**-0.5, weight.detach()
        assert 0.98 * bound < weight.abs().max() <= bound and weight.std() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert attention.key.shape == (4, 9, 64) and attention.value.shape == (4, 64, 9)
    assert grouped.weight.shape == (200, 25, 7) and grouped.bias.shape == (200, 1, 7)


def test_a_plain_module_has_no_bias_where_the_paper_has_none() -> None:
    assert MultiheadAttention(**SIZES).query.bias is None and MMoE(5, 3, (4,), 2).task_gate.bias is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MLP(3, (0,)), r"hidden\[0\] is 0: it must be at least 1"),
        (lambda: MMoE(0, 2, (4,), 1), "in_dim is 0: it must be at least 1"),
        (lambda: MMoE(3, 2, (), 1), "hidden is empty"),
        (lambda: MMoE(3, 2, (4, 0), 1), r"hidden\[1\] is 0: it must be at least 1"),
        (lambda: Towers(0, (4,), 2), "in_dim is 0: it must be at least 1"),
        (lambda: Towers(3, (4,), 0), "tasks is 0: it must be at least 1"),
        (lambda: Towers(3, (0,), 2), r"hidden\[0\] is 0: it must be at least 1"),
        (lambda: Linear(0, 2), "in_dim is 0: it must be at least 1"),
        (lambda: Linear(2, 0), "out_dim is 0: it must be at least 1"),
        (lambda: PosoLinear(0, 2, 3), "in_dim is 0: it must be at least 1"),
        (lambda: PosoLinear(2, 0, 3), "out_dim is 0: it must be at least 1"),
        (lambda: GroupedLinear(0, 2, 2), "groups is 0: it must be at least 1"),
        (lambda: GroupedLinear(2, 0, 2), "in_dim is 0: it must be at least 1"),
        (lambda: GroupedLinear(2, 2, 0), "out_dim is 0: it must be at least 1"),
        (lambda: MultiheadAttention(0, 3, 2, 4), "query_dim is 0: it must be at least 1"),
        (lambda: MultiheadAttention(3, 0, 2, 4), "sequence_dim is 0: it must be at least 1"),
        (lambda: MultiheadAttention(3, 3, 2, 0), "head_dim is 0: it must be at least 1"),
        (lambda: PersonalizedGate(4, 0), "out_dim is 0: it must be at least 1"),
        (lambda: PersonalizedGate(3, 4, scale=-1.0), r"scale is -1.0: it must be above 0"),
        (lambda: Mwuf(0, 2, 3), "dim is 0: it must be at least 1"),
        (lambda: Mwuf(2, 0, 3), "side_dim is 0: it must be at least 1"),
        (lambda: Mwuf(2, 3, 0), "user_dim is 0: it must be at least 1"),
        (lambda: Mwuf(2, 3, 4, hidden=0), "hidden is 0: it must be at least 1"),
        (lambda: MetaCF(3, rate=-0.1), "rate -0.1"),
        (lambda: MetaCF(3, hidden=-1), "hidden -1"),
        (lambda: Cvar(0, 2), "dim is 0: it must be at least 1"),
        (lambda: Cvar(2, 0), "side_dim is 0: it must be at least 1"),
        (lambda: Cvar(2, 2, latent=0), "latent is 0: it must be at least 1"),
        (lambda: Dropout(-0.1), "dropout is -0.1: it must be at least 0 and below 1"),
        (lambda: Linear(3, 2)(torch.zeros(3)), r"x has shape \[3\]: it must be \[batch, ..., 3\]"),
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
