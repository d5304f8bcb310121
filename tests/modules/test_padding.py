"""What lies where nothing is, NaN and infinity included, reaches neither results nor gradients; lengths that cannot be
are refused.

B batch, L sequence length.
"""

import pytest
import torch
from cases import LENGTH, PC, double, randomize, sequence_inputs
from test_edges import FOLDS, SIZES, modules
from torch import Tensor, nn

from coldrank.modules import MetaCF, MultiheadAttention
from coldrank.modules.checks import check_lengths
from coldrank.modules.mwuf import mean_users

B, L = 7, LENGTH
KINDS = ["plain", *FOLDS]


def tried(given: str, answer: str) -> pytest.MarkDecorator:
    return pytest.mark.tried("requests", given, answer)


def derivatives(module: nn.Module, inputs: list[Tensor], lengths: Tensor, pc: Tensor) -> list[Tensor]:
    """Result, first and second derivatives of a module by its inputs and parameters."""
    query, sequence = (x.clone().requires_grad_() for x in inputs)
    y = module(query, sequence, lengths, pc)
    leaves = [query, sequence, *module.parameters()]
    first = torch.autograd.grad((y.square() + y).sum(), leaves, create_graph=True, materialize_grads=True)
    total = torch.stack([g.square().sum() for g in first]).sum()
    return [y, *first, *torch.autograd.grad(total, leaves, materialize_grads=True)]


@tried("NaN or infinity in padded positions of a history", "as zeros there: result, gradients, second derivatives")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("number", range(len(KINDS)), ids=KINDS)
def test_padding_does_not_reach_result_or_gradients(number, value):
    module = modules()[number]
    query, sequence, lengths = double(sequence_inputs(B))
    assert lengths.tolist() == [0, 6, 2, 3, 4, 5, 0]
    pc = torch.randn(B, PC).double()
    padded = (torch.arange(L) >= lengths[:, None]).unsqueeze(2)
    zeros, worst = sequence.masked_fill(padded, 0.0), sequence.masked_fill(padded, value)
    wanted, found = (derivatives(module, [query, x], lengths, pc) for x in (zeros, worst))
    for ours, theirs in zip(found, wanted, strict=True):
        assert theirs.isfinite().all() and torch.equal(ours, theirs)
    assert found[0][0].abs().max() == 0 and found[0][2].abs().min() > 0
    weights = module.weights(query, worst, lengths, pc)
    assert torch.equal(weights, module.weights(query, zeros, lengths, pc)) and weights.isfinite().all()


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        pytest.param(
            [2, -1, 0], "lengths has -1 to 2: they must be in 0 to 6", marks=tried("a negative length", "refused")
        ),
        pytest.param(
            [2, 7, 0], "lengths has 0 to 7: they must be in 0 to 6", marks=tried("a length past the list", "refused")
        ),
        ([2, 1], r"lengths has shape \[2\]: it must be \[3\] whole numbers"),
        ([2.0, 1.0, 0.5], "whole numbers"),
        ([[2], [1], [0]], r"lengths has shape \[3, 1\]"),
    ],
)
@pytest.mark.parametrize("scripted", [False, True])
def test_lengths_that_cannot_be_are_refused(lengths, message, scripted):
    query, sequence, _ = double(sequence_inputs(3))
    for module in modules():
        made = torch.jit.script(module) if scripted else module
        for call in (made, *([] if scripted else [made.weights])):
            with pytest.raises(torch.jit.Error if scripted else ValueError, match=message):
                call(query, sequence, torch.tensor(lengths), torch.randn(3, PC).double())


def test_lengths_that_are_not_on_a_cpu_are_asserted_there():
    """Meta tensors stand for a GPU's: nothing is read from them, but what they are asked is seen."""
    lengths, sequence = torch.zeros(3, dtype=torch.int64, device="meta"), torch.zeros(3, LENGTH, 2, device="meta")
    with torch.profiler.profile() as profile:
        check_lengths(lengths, sequence)
    assert [e.name for e in profile.events() if "assert" in e.name] == ["aten::_assert_async"]


def test_no_samples_have_no_wrong_lengths():
    query, sequence, lengths = (x[:0] for x in sequence_inputs(2))
    assert MultiheadAttention(**SIZES)(query, sequence, lengths).shape == (0, 6)


@tried("NaN among the users of an item that is not there", "not in their mean")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_users_that_are_not_there_are_not_in_the_mean(value):
    users = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [value, value]], [[value, value]] * 3], requires_grad=True)
    present = torch.tensor([[True, True, False], [False] * 3])
    mean = mean_users(users, present)
    assert mean.tolist() == [[2.0, 4.0], [0.0, 0.0]]
    (gradient,) = torch.autograd.grad(mean.sum(), users)
    assert gradient[0].tolist() == [[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]] and gradient[1].abs().max() == 0


@tried("NaN where a user has no event", "the user's embedding is that of the events that there are")
@pytest.mark.parametrize("learner", ["general", "linear", "neural"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_events_that_are_not_there_adapt_no_user(learner, value):
    torch.manual_seed(0)
    module = randomize(MetaCF(3, learner, 4, steps=2, rate=0.3, learn_rates=True, first_order=False))
    items, labels = torch.randn(2, 3, 3).double(), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]).double()
    weights = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]).double()
    found = []
    for filled in (0.0, value):
        nothing = weights == 0
        q = items.masked_fill(nothing.unsqueeze(2), filled).requires_grad_()
        p = module(q, labels.masked_fill(nothing, filled), weights)
        leaves = [q, *module.parameters()]
        found.append([p, *torch.autograd.grad(p.square().sum(), leaves, materialize_grads=True)])
    for wanted, ours in zip(*found, strict=True):
        assert wanted.isfinite().all() and torch.equal(ours, wanted)
