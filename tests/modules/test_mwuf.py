"""MWUF's networks against the equations, written out in float64."""

import numpy as np
import pytest
import torch

from coldrank.modules.mwuf import Mwuf, mean_users


@pytest.fixture
def case():
    torch.manual_seed(0)
    module = Mwuf(dim=4, side_dim=6, user_dim=3, hidden=5).double()
    return module, torch.randn(7, 4).double(), torch.randn(7, 6).double(), torch.randn(7, 3).double()


def shaken(module):
    for p in module.parameters():
        torch.nn.init.normal_(p)
    return module


def test_a_fresh_warm_up_is_the_identity(case):
    module, ids, side, users = case
    assert torch.equal(module(ids, side, users), ids)
    assert torch.equal(module.float()(ids.float(), side.float(), users.float()), ids.float())


def test_the_equations(case):
    module, ids, side, users = case
    shaken(module)

    def net(name, x):
        w = {k.removeprefix(f"{name}."): v.detach().numpy() for k, v in module.named_parameters() if k.startswith(name)}
        return np.maximum(x @ w["0.weight"].T + w["0.bias"], 0) @ w["2.weight"].T + w["2.bias"]

    wanted = ids.numpy() * (1 + net("scaling", side.numpy())) + net("shifting", users.numpy())
    assert np.abs(module(ids, side, users).detach().numpy() - wanted).max() < 1e-12


def test_gradients(case):
    module, ids, side, users = case
    shaken(module)
    assert torch.autograd.gradcheck(module, [t.requires_grad_() for t in (ids, side, users)])


def test_both_networks_learn_from_the_first_step_on(case):
    module, ids, side, users = case
    module(ids, side, users).square().sum().backward()
    assert all(module.get_parameter(f"{net}.2.weight").grad.abs().max() > 0 for net in ("scaling", "shifting"))


def test_scripted_is_eager_and_one_row_will_do(case):
    module, ids, side, users = case
    shaken(module)
    scripted = torch.jit.script(module)
    assert torch.equal(scripted(ids, side, users), module(ids, side, users))
    assert torch.allclose(module(ids[:1], side[:1], users[:1]), module(ids, side, users)[:1])


def test_a_wrong_width_is_named(case):
    module, ids, side, users = case
    for given, message in (
        ((side, side, users), r"ids has shape \[7, 6\]: it must be \[batch, ..., 4\]"),
        ((ids, users, users), r"side has shape \[7, 3\]: it must be \[batch, ..., 6\]"),
        ((ids, side, ids), r"users has shape \[7, 4\]: it must be \[batch, ..., 3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            module(*given)


def test_the_networks_leave_the_generator_alone():
    torch.manual_seed(3)
    Mwuf(4, 6, 3)
    drawn = torch.randn(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.randn(1))


def test_mean_of_the_users_that_are_present():
    users = torch.randn(4, 5, 2)
    present = torch.tensor([[1, 0, 1, 0, 0], [1] * 5, [0] * 5, [0, 0, 0, 1, 0]]).bool()
    found = mean_users(users, present)
    assert torch.allclose(found[0], (users[0, 0] + users[0, 2]) / 2)
    assert torch.allclose(found[1], users[1].mean(0))
    assert torch.equal(found[2], torch.zeros(2))
    assert torch.equal(found[3], users[3, 3])
