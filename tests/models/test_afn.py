"""The adaptive factorization network against the products of Cheng et al., sample by sample, term by term, in
float64."""

import math
from dataclasses import replace

import pytest
import torch
from embedded import gradients_are_right, samples
from samples import TASKS
from test_fm import BASE, LENGTHS, NUMBERS, SET, WIDTH, B, embedded_rows, inputs, leaked

from coldrank.data.errors import UserError
from coldrank.models.afn import AFN
from coldrank.train.checks import validate

NEURONS, FLOOR = 3, 1e-3


@pytest.fixture
def made():
    torch.manual_seed(0)
    module = AFN(neurons=NEURONS, floor=FLOOR, tower_hidden=(6, 5)).build(SET, len(TASKS))
    for name, p in module.named_parameters():
        torch.nn.init.normal_(p, std=0.2 if name == "powers" else 0.3)
    return module.double().eval()


def test_crosses_are_products_of_powers(made):
    given = inputs()
    w, logits = {n: p.detach() for n, p in made.state_dict().items()}, made(*given).detach()
    assert logits.shape == (B, len(TASKS))
    for b in range(B):
        fields = embedded_rows(given, b)
        crosses = [
            math.prod((abs(float(f[k])) + FLOOR) ** float(w["powers"][j, i]) for i, f in enumerate(fields))
            for j in range(NEURONS)
            for k in range(WIDTH)
        ]
        x = torch.cat([torch.tensor(crosses).double(), given[1].dense[b]])
        for i in range(2):
            x = (w[f"deep.layers.{i}.weight"] @ x + w[f"deep.layers.{i}.bias"]).clamp(min=0)
        torch.testing.assert_close(logits[b], w["out.weight"] @ x + w["out.bias"])


def test_gradients_are_those_of_finite_differences(made):
    assert gradients_are_right(made, inputs())


def test_fields_of_zeros_and_powers_that_begin_near_zero_give_finite_crosses():
    """An empty history is a field of zeros."""
    torch.manual_seed(0)
    module = AFN(neurons=500).build(SET, len(TASKS))
    assert float(module.powers.detach().std() * module.powers.shape[1]) == pytest.approx(1, rel=0.1)
    embedded = {n: torch.zeros_like(e).float().requires_grad_() for n, e in inputs()[0].items()}
    logits = module(embedded, samples(torch.zeros(B, NUMBERS), LENGTHS))
    logits.sum().backward()
    assert logits.isfinite().all() and all(p.grad.isfinite().all() for p in module.parameters())
    assert all(e.grad.isfinite().all() for e in embedded.values())


def test_what_is_past_the_end_of_a_history_is_not_read(made):
    given = inputs()
    assert torch.equal(made(leaked(given[0]), given[1]), made(*given))


def test_widths_that_differ_are_refused():
    with pytest.raises(UserError, match="model='afn' needs fields of one width; dim is {'user_id': 4, 'item_id': 8"):
        validate(replace(BASE, model=AFN()))
    with pytest.raises(UserError, match=r"floor=0\.0"):
        validate(replace(BASE, model=AFN(floor=0.0)))
