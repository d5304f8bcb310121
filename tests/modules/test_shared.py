"""Checks that every module passes, over the table in cases.py."""

import pytest
import torch
from cases import CASES, PC, Case, double, randomize
from torch import Tensor, nn
from torch.func import functional_call

from coldrank.modules.gate import separate_draws

cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@cases
def test_neutral_gates_give_the_plain_module(case: Case) -> None:
    torch.manual_seed(1)
    plain = case.plain()
    after_plain = torch.rand(())
    torch.manual_seed(1)
    poso = case.poso()
    assert torch.equal(after_plain, torch.rand(())), "gates and folds must not move the stream of the plain weights"
    inputs, pc = case.inputs(7), torch.randn(7, PC)
    difference = (plain(*inputs, pc) - poso(*inputs, pc)).abs().max()
    assert difference == 0 if case.exact else difference < 1e-6


@cases
def test_the_first_gradient_of_the_plain_weights_is_that_of_the_plain_module(case: Case) -> None:
    torch.manual_seed(1)
    plain = case.plain()
    torch.manual_seed(1)
    poso = case.poso()
    inputs, pc = case.inputs(7), torch.randn(7, PC)
    plain(*inputs, pc).square().sum().backward()
    poso(*inputs, pc).square().sum().backward()
    shared = {name: p for name, p in poso.named_parameters() if "gate" not in name or "task_gate" in name}
    for name, parameter in plain.named_parameters():
        if parameter.shape == shared[name].shape or name != "value":  # Q and K may be repeated N-fold
            gradient = shared[name].grad.reshape(-1, *parameter.shape).sum(0)  # type: ignore[union-attr]
            torch.testing.assert_close(parameter.grad, gradient)
    last_layers = [p.grad for name, p in poso.named_parameters() if name.endswith("output.weight")]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in last_layers)


@cases
@pytest.mark.parametrize("batch", [0, 1, 7])
def test_scripted_equals_eager(case: Case, batch: int) -> None:
    for module in (case.plain(), randomize(case.poso()).float()):
        inputs, pc = case.inputs(batch), torch.randn(batch, PC)
        expected = module(*inputs, pc)
        assert expected.shape[0] == batch and not expected.isnan().any()
        assert torch.equal(torch.jit.script(module)(*inputs, pc), expected)


@cases
def test_one_sample_equals_its_row_of_a_batch(case: Case) -> None:
    for module in (randomize(case.plain()), randomize(case.poso())):
        inputs, pc = double(case.inputs(7)), torch.randn(7, PC).double()
        rows = [module(*(x[i : i + 1] for x in inputs), pc[i : i + 1]) for i in range(7)]
        torch.testing.assert_close(torch.cat(rows), module(*inputs, pc))


@cases
def test_gradients_match_finite_differences(case: Case) -> None:
    for module in (randomize(case.plain()), randomize(case.poso())):
        floats, rest = _split(double((*case.inputs(3), torch.randn(3, PC))))
        names, weights = zip(*module.named_parameters(), strict=True)

        def call(pc: Tensor, *tensors: Tensor) -> Tensor:
            floats, weights = tensors[: -len(names)], tensors[-len(names) :]  # noqa: B023 (called within the loop)
            named = dict(zip(names, weights, strict=True))  # noqa: B023
            y: Tensor = functional_call(module, named, (*floats, *rest, pc))  # noqa: B023
            return y

        leaves = [x.detach().requires_grad_() for x in (floats[-1], *floats[:-1], *weights)]
        assert torch.autograd.gradcheck(call, leaves, fast_mode=True)


@cases
def test_the_code_is_required_and_of_the_declared_width(case: Case) -> None:
    module, inputs = case.poso(), case.inputs(2)
    with pytest.raises(ValueError, match="pc is None"):
        module(*inputs)
    with pytest.raises(ValueError, match=r"pc has shape \[2, 4\]: it must be \[batch, ..., 7\]"):
        module(*inputs, torch.randn(2, 4))
    assert torch.equal(case.plain().eval()(*inputs).isnan().any(), torch.tensor(False)), "the plain module needs no pc"


@cases
def test_a_wrong_input_width_is_named(case: Case) -> None:
    first, *rest = case.inputs(2)
    name = "query" if rest else "x"
    module: nn.Module
    for module in (case.plain(), case.poso()):
        with pytest.raises(ValueError, match=rf"{name} has shape .*: it must be \[batch, ..., 5\]"):
            module(torch.cat([first, first], -1), *rest, torch.randn(2, PC))


def _split(tensors: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
    return [x for x in tensors if x.is_floating_point()], [x for x in tensors if not x.is_floating_point()]


def test_separate_draws_are_all_different_and_none_of_the_plain_ones() -> None:
    plain, separate = [], []
    for _ in range(200):
        plain.append(float(torch.rand((), dtype=torch.float64)))
        with separate_draws():
            separate.append(float(torch.rand((), dtype=torch.float64)))
    assert len({*plain, *separate}) == 400
