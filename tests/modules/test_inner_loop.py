"""The inner loop against a naive loop over tasks, in float64."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from coldrank.modules import InnerLoop
from coldrank.modules.inner_loop import each_task, pad_tasks

TASKS = 4
NAMES = ("0.weight", "0.bias", "2.weight", "2.bias")


class Problem:
    """Rows of three tasks out of four, in ragged numbers, for a small network whose weights are adapted."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
        self.x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
        self.y = torch.randn(9, dtype=torch.float64)
        self.task = torch.tensor([0, 3, 0, 1, 0, 3, 0, 1, 0])
        self.query = torch.tensor([False, False, True, False, False, True, True, True, True])

    @property
    def start(self) -> dict[str, Tensor]:
        return dict(self.net.named_parameters())

    def loss_of_one(self, weights: dict[str, Tensor], x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        errors = (functional_call(self.net, weights, (x,)).squeeze(-1) - y) ** 2
        return (errors * weight).sum() / weight.sum().clamp(min=1)

    def stacked(self, tasks: int = TASKS) -> dict[str, Tensor]:
        return {name: p.expand(tasks, *p.shape) for name, p in self.start.items()}

    def losses(self, rows: Tensor):
        index, present = pad_tasks(torch.where(rows, self.task, -1), TASKS)
        one = each_task(self.loss_of_one)
        return lambda weights: one(weights, self.x[index], self.y[index], present.double())

    def outer(self, loop: InnerLoop) -> Tensor:
        return self.losses(self.query)(loop(self.stacked(), self.losses(~self.query))[-1]).sum()

    def naive(self, rates: Tensor, second_order: bool) -> tuple[list[dict[str, Tensor]], Tensor]:
        adapted, total = [], torch.zeros((), dtype=torch.float64)
        for n in range(TASKS):
            weights = self.start
            own = self.task == n
            support = own & ~self.query
            for step in range(len(rates)):
                if support.any():
                    ones = torch.ones(int(support.sum()), dtype=torch.float64)
                    loss = self.loss_of_one(weights, self.x[support], self.y[support], ones)
                    grads = torch.autograd.grad(loss, list(weights.values()), create_graph=second_order)
                    grads = [g if second_order else g.detach() for g in grads]
                    weights = {k: w - r * g for (k, w), r, g in zip(weights.items(), rates[step], grads, strict=True)}
            adapted.append(weights)
            query = own & self.query
            if query.any():
                ones = torch.ones(int(query.sum()), dtype=torch.float64)
                total = total + self.loss_of_one(weights, self.x[query], self.y[query], ones)
        return adapted, total


def loop_of(steps: int = 2, *, second_order: bool = True) -> InnerLoop:
    loop = InnerLoop(NAMES, steps, 0.1, second_order).double()
    with torch.no_grad():
        loop.rates.copy_(torch.linspace(0.05, 0.4, loop.rates.numel()).view_as(loop.rates))
    return loop


@pytest.mark.parametrize("second_order", [True, False])
def test_equals_a_loop_over_tasks(second_order):
    problem, loop = Problem(), loop_of(second_order=second_order)
    adapted, total = problem.naive(loop.rates, second_order)
    found = loop(problem.stacked(), problem.losses(~problem.query))[-1]
    for n in range(TASKS):
        for name in NAMES:
            torch.testing.assert_close(found[name][n], adapted[n][name], rtol=1e-12, atol=1e-14)
    wanted = [*problem.net.parameters(), problem.x, loop.rates]
    outer = problem.outer(loop)
    torch.testing.assert_close(outer, total, rtol=1e-12, atol=0)
    pairs = zip(torch.autograd.grad(outer, wanted), torch.autograd.grad(total, wanted), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


def test_the_outer_gradient_is_that_of_finite_differences():
    problem, loop = Problem(), loop_of()
    tensors = [loop.rates, *problem.net.parameters()]
    gradients = torch.autograd.grad(problem.outer(loop), tensors)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        with torch.no_grad():
            for at in range(min(3, tensor.numel())):
                flat, step = tensor.view(-1), 1e-6
                before = flat[at].item()
                flat[at] = before + step
                up = problem.outer(loop).item()
                flat[at] = before - step
                down = problem.outer(loop).item()
                flat[at] = before
                assert gradient.view(-1)[at].item() == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-8)


def test_a_task_without_samples_changes_nothing():
    problem, loop = Problem(), loop_of()
    adapted = loop(problem.stacked(), problem.losses(~problem.query))[-1]
    for name, start in problem.start.items():
        assert torch.equal(adapted[name][2], start)  # task 2 has no rows
        assert not torch.equal(adapted[name][0], start)
    # ... nor do the rows of other tasks: the same with the empty task's rows left out of the count
    again = loop(problem.stacked(2), lambda w: problem.losses(~problem.query)(_padded(w))[:2])[-1]
    for name in NAMES:
        torch.testing.assert_close(again[name], adapted[name][:2], rtol=1e-12, atol=1e-14)


def _padded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([w, w.detach()]) for name, w in weights.items()}


def test_the_path_begins_at_the_start_and_has_every_step():
    problem, loop = Problem(), loop_of(3)
    path = loop(problem.stacked(), problem.losses(~problem.query))
    assert len(path) == 4
    assert all(torch.equal(path[0][n], problem.start[n].expand(TASKS, *problem.start[n].shape)) for n in NAMES)


def test_adapts_without_a_graph_as_with_one():
    problem, loop = Problem(), loop_of()
    with_graph = loop(problem.stacked(), problem.losses(~problem.query))[-1]
    with torch.no_grad():
        without = loop(problem.stacked(), problem.losses(~problem.query))[-1]
    for name in NAMES:
        assert torch.equal(without[name], with_graph[name]) and not without[name].requires_grad


def test_reduce_is_given_the_gradients_of_every_step():
    problem, loop = Problem(), loop_of()
    calls = []

    def double(gradients: Tensor) -> Tensor:
        calls.append(gradients.shape)
        return 2 * gradients

    doubled = loop(problem.stacked(), problem.losses(~problem.query), double)[1]
    plain = loop(problem.stacked(), problem.losses(~problem.query))[1]
    assert calls == [(TASKS, sum(problem.start[n].numel() for n in NAMES))] * 2
    for name, start in problem.start.items():
        torch.testing.assert_close(doubled[name] - start, 2 * (plain[name] - start))


def test_pad_tasks():
    index, present = pad_tasks(torch.tensor([2, 0, -1, 2, 2]), 3)
    assert index.tolist() == [[1, 0, 0], [0, 0, 0], [0, 3, 4]]
    assert present.tolist() == [[True, False, False], [False] * 3, [True] * 3]
    empty, _ = pad_tasks(torch.empty(0, dtype=torch.int64), 2)
    assert empty.shape == (2, 0)


def test_refuses_a_loop_of_negative_length_or_without_tensors():
    with pytest.raises(ValueError, match="steps is -1"):
        InnerLoop(NAMES, steps=-1)
    with pytest.raises(ValueError, match="names is 0"):
        InnerLoop((), steps=1)
