"""Sequences in parts: values, derivatives of both orders, and bf16, against the sequence as one tensor."""

import pytest
import torch
from cases import LENGTH, double, randomize, sequence_inputs
from test_edges import SIZES, modules
from torch import Tensor

from coldrank.modules import MultiheadAttention
from coldrank.modules.attended import attend, attended, attention_weights


def plain(probes: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
    """Through autograd, operation by operation."""
    return attend(attention_weights(probes, sequence, lengths), sequence, lengths)


def inputs(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    """Probes, positions and the parts of sequences: empty, full and between; and lengths."""
    torch.manual_seed(0)
    shapes = ((5, 2, 8), (LENGTH, 8), (5, LENGTH, 3), (5, LENGTH, 1), (5, LENGTH, 4))
    leaves = [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]
    return leaves, torch.tensor([0, LENGTH, 1, 3, 2])


def test_parts_give_what_one_tensor_gives_to_the_second_derivative() -> None:
    (probes, positions, *parts), lengths = inputs()
    leaves = [probes, positions, *parts]
    found = []
    for read in (
        attended(probes, parts, positions, lengths),
        plain(probes, torch.cat(parts, 2) + positions, lengths),
    ):
        first = torch.autograd.grad(read.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum((g.sin().sum() for g in first), torch.zeros(())), leaves)
        found.append([read, *first, *second])
    for ours, theirs in zip(*found, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs)


def test_derivatives_match_finite_differences() -> None:
    (probes, positions, *parts), lengths = inputs()
    call = lambda probes, positions, *parts: attended(probes, list(parts), positions, lengths)
    assert torch.autograd.gradcheck(call, (probes, positions, *parts))
    assert torch.autograd.gradgradcheck(call, (probes, positions, *parts), fast_mode=True)


def test_bf16_has_gradients_in_float32_near_those_of_one_tensor_in_bf16() -> None:
    (probes, positions, *parts), lengths = inputs(torch.float32)
    found = []
    for call in (
        lambda: attended(probes, parts, positions, lengths),
        lambda: plain(probes, torch.cat(parts, 2) + positions, lengths),
    ):
        with torch.autocast("cpu", torch.bfloat16):
            read = call()
        found.append(torch.autograd.grad(read.float().square().sum(), [probes, positions, *parts]))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.01 * theirs.norm()  # bf16 has eight bits


def test_a_module_takes_a_sequence_in_parts() -> None:
    query, sequence, lengths = double(sequence_inputs(5))
    pc, positions = torch.randn(5, 7).double(), torch.randn(LENGTH, sequence.shape[2]).double()
    first, *beside = sequence.split([3, 1, 4], 2)
    for module in modules():
        for call in (module, module.weights):
            ours = call(query, first, lengths, pc, beside, positions)
            torch.testing.assert_close(ours, call(query, sequence + positions, lengths, pc))


def test_parts_of_another_width_are_refused() -> None:
    query, sequence, lengths = sequence_inputs(3)
    with pytest.raises(ValueError, match=r"sequence has shape \[3, 6, 8\]: all of it must be \[batch, ..., 8\]"):
        MultiheadAttention(**SIZES)(query, sequence, lengths, None, [sequence])


def test_finite_padding_is_not_looked_at() -> None:
    """The module takes the word for it; what is finite there does not matter all the same."""
    query, sequence, lengths = double(sequence_inputs(5))
    torch.manual_seed(0)
    module = randomize(MultiheadAttention(**SIZES, finite_padding=True))
    other = torch.where(torch.arange(LENGTH)[:, None] >= lengths[:, None, None], 1e6, sequence)
    assert torch.equal(module(query, sequence, lengths), module(query, other, lengths))
