"""MetaCF against automatic differentiation, user by user, and finite differences."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from coldrank.modules import MetaCF
from coldrank.modules.metacf import logistic_steps

LEARNERS = ("general", "linear", "neural")
DIM, RATES = 2, (0.3, 0.1, 0.2)


def events(users: int = 5, length: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Ragged: user u has u mod (length + 1) events, so the first has none. The padding is full of numbers."""
    torch.manual_seed(1)
    items, labels = torch.randn(users, length, DIM).double(), torch.randint(0, 2, (users, length)).double()
    lengths = torch.arange(users) % (length + 1)
    return items, labels, (torch.arange(length) < lengths.unsqueeze(1)).double()


def module(learner: str, *, first_order: bool, learn_rates: bool = False) -> MetaCF:
    torch.manual_seed(0)
    made = MetaCF(DIM, learner, steps=len(RATES), first_order=first_order, learn_rates=learn_rates).double()  # type: ignore[arg-type]
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    made.rates.data.copy_(torch.tensor(RATES))
    return made


def by_autograd(made: MetaCF, items: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """One user at a time, on the events that are there: Algorithm 1 with the loss of Eq. 5."""
    adapted = []
    for user in range(len(items)):
        there = weights[user] > 0
        q, y = items[user][there], labels[user][there]
        mean = q[y == 1].mean(0) if y.any() else torch.zeros(DIM).double()
        p = made.learner(mean.unsqueeze(0))[0]
        for rate in made.rates:
            loss = F.binary_cross_entropy_with_logits(q @ p, y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, p, create_graph=True)
            p = p - rate * (gradient.detach() if made.first_order else gradient)
        adapted.append(p)
    return torch.stack(adapted)


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("learner", LEARNERS)
def test_equals_automatic_differentiation_per_user(learner, first_order):
    made, given = module(learner, first_order=first_order, learn_rates=True), events()
    ours, theirs = made(*given), by_autograd(made, *given)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(ours)
    parameters = list(made.parameters())
    for mine, right in zip(
        torch.autograd.grad((ours * weight).sum(), parameters),
        torch.autograd.grad((theirs * weight).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, right, rtol=1e-11, atol=1e-11)


def test_second_order_gradients_equal_finite_differences():
    p, rates = torch.randn(5, DIM).double().requires_grad_(), torch.tensor(RATES).double().requires_grad_()
    items, labels, weights = events()
    items.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, items, rates: logistic_steps(p, items, labels, weights, rates, False), (p, items, rates)
    )


def test_first_order_takes_the_gradient_at_the_end_as_that_of_the_start():
    made, given = module("general", first_order=True), events()
    weight = torch.randn(5, DIM).double()
    (gradient,) = torch.autograd.grad((made(*given) * weight).sum(), made.learner.phi)
    torch.testing.assert_close(gradient, weight.sum(0))


@pytest.mark.parametrize("learner", LEARNERS)
def test_scripted_equals_eager_and_each_user_stands_alone(learner):
    made, (items, labels, weights) = module(learner, first_order=True), events()
    scripted = torch.jit.script(made)
    with torch.inference_mode():
        whole = made(items, labels, weights)
        assert torch.equal(scripted(items, labels, weights), whole)
        for user in range(len(items)):
            alone = made(items[user : user + 1], labels[user : user + 1], weights[user : user + 1])
            torch.testing.assert_close(alone[0], whole[user], rtol=1e-13, atol=1e-13)
        longer = [torch.cat([x, torch.full_like(x[:, :1], 9.0)], 1) for x in (items, labels)]
        padded = made(*longer, F.pad(weights, (0, 1)))
        torch.testing.assert_close(padded, whole, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("learner", LEARNERS)
def test_without_events_or_steps_the_initial_embedding_stays(learner):
    made, (items, labels, weights) = module(learner, first_order=True), events()
    start = made.initial(items, labels, weights)
    assert torch.equal(made(items, labels, weights)[0], start[0]), "the first user has no event"
    assert torch.equal(MetaCF.forward(made, items[:, :0], labels[:, :0], weights[:, :0])[0], start[0])
    none = MetaCF(DIM, learner, steps=0).double()
    assert torch.equal(none(items, labels, weights), none.initial(items, labels, weights))


def test_steps_lower_each_users_loss():
    made, (items, labels, weights) = module("general", first_order=True), events()
    loss = lambda p: F.binary_cross_entropy_with_logits(
        (items @ p.unsqueeze(2)).squeeze(2), labels, weights, reduction="none"
    ).sum(1)
    before, after = loss(made.initial(items, labels, weights)), loss(made(items, labels, weights))
    assert (after[1:] < before[1:]).all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"learner": "cubic"}, "'cubic': it must be general"),
        ({"steps": -1}, "steps is -1"),
        ({"dim": 0}, "dim is 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        MetaCF(**{"dim": DIM} | arguments)


def test_items_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"items has shape \[2, 4, 5\]"):
        MetaCF(DIM)(torch.zeros(2, 4, 5), torch.zeros(2, 4), torch.zeros(2, 4))
