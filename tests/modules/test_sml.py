"""SML's transfer network against its layers as convolutions, in float64."""

import pytest
import torch
from torch.nn import functional as F

from coldrank.modules.sml import Transfer


def by_convolutions(net, before, trained):
    """Rows as pictures of three lines: filters of 3 x 1, then of C1 x 1, as the authors lay them out."""
    product = before * trained / before.pow(2).sum(1).sqrt().unsqueeze(1)
    picture = torch.stack([before, trained, product], 1).unsqueeze(1)  # [N, 1, 3, D]
    first, second = net.columns[0], net.columns[2]
    lines = F.gelu(F.conv2d(picture, first.weight.view(-1, 1, 3, 1), first.bias))  # [N, C1, 1, D]
    lines = F.conv2d(lines.transpose(1, 2), second.weight.view(len(second.weight), 1, -1, 1), second.bias)
    columns = F.gelu(lines).squeeze(2)  # [N, C2, D]
    return net.last(F.gelu(net.hidden(columns.transpose(1, 2).flatten(1))))


@pytest.mark.parametrize("rows", [1, 5])
def test_a_row_is_transferred_as_the_equations_have_it(rows):
    torch.manual_seed(0)
    net = Transfer(6, (4, 3), 7).double()
    before, trained = torch.randn(2, rows, 6, dtype=torch.float64)
    assert torch.allclose(net(before, trained), by_convolutions(net, before, trained), rtol=1e-12)


def test_no_gradient_passes_through_the_product():
    torch.manual_seed(0)
    net = Transfer(3, (4, 3), 7).double()
    before, trained = torch.randn(2, 2, 3, dtype=torch.float64)
    trained.requires_grad_()
    net(before, trained).sum().backward()
    product = (before * trained / before.norm(dim=1, keepdim=True)).detach()
    still = trained.detach().requires_grad_()
    columns = net.columns(torch.stack([before, still, product], 2))
    net.last(F.gelu(net.hidden(columns.flatten(1)))).sum().backward()
    assert torch.allclose(trained.grad, still.grad, rtol=1e-12)


def test_what_is_added_begins_with_the_trained_weights():
    before, trained = torch.randn(2, 5, 6)
    assert torch.equal(Transfer(6, added=True)(before, trained), trained)


def test_rows_that_have_not_served_are_finite():
    assert torch.isfinite(Transfer(4)(torch.zeros(2, 4), torch.ones(2, 4))).all()
