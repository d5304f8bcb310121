"""ASMG's generator against its equations, weight by weight, in float64."""

import math

import pytest
import torch

from coldrank.modules.asmg import Generator


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def by_hand(net, xs, h, c):
    """The unit of one weight, number by number: its values in a sequence of models, its hidden state -> what serves."""
    size = len(h)
    u, w, v = (p[c].tolist() for p in (net.of_x, net.of_h, net.of_reset))
    for x in xs:
        gate = lambda k, x=x, h=h: sigmoid(x * u[k] + sum(h[i] * w[i][k] for i in range(size)))
        z, r = [gate(k) for k in range(size)], [gate(size + k) for k in range(size)]
        reset = [h[i] * r[i] for i in range(size)]
        g = [math.tanh(x * u[2 * size + k] + sum(reset[i] * v[i][k] for i in range(size))) for k in range(size)]
        h = [(1 - z[k]) * h[k] + z[k] * g[k] for k in range(size)]
    return sum(a * b for a, b in zip(h, net.out[c].tolist(), strict=True)) + net.bias[c].item()


@pytest.mark.parametrize(("length", "hidden"), [(1, 1), (3, 2)])
def test_each_weight_goes_through_its_own_unit(length, hidden):
    torch.manual_seed(0)
    net = Generator(4, hidden).double()
    torch.nn.init.normal_(net.bias)
    models, h = torch.randn(length, 5, 4).double(), torch.randn(5, 4, hidden).double()
    made = net(models, h)
    assert made.shape == (5, 4)
    for n in range(5):
        for c in range(4):
            expected = by_hand(net, models[:, n, c].tolist(), h[n, c].tolist(), c)
            assert made[n, c].item() == pytest.approx(expected, rel=1e-12)


def test_its_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    net = Generator(2, 3).double()
    models, h = torch.randn(2, 3, 2).double(), torch.randn(3, 2, 3).double()
    names = [name for name, _ in net.named_parameters()]
    of = lambda *weights: torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (models, h))
    assert torch.autograd.gradcheck(of, tuple(net.parameters()))
