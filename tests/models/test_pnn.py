"""Product-based networks against the equations of Qu et al., sample by sample, term by term, in float64."""

from dataclasses import replace

import pytest
import torch
from embedded import gradients_are_right
from samples import TASKS
from test_fm import BASE, SET, WIDTH, B, inputs, leaked, variables

from coldrank.data.errors import UserError
from coldrank.models.pnn import PNN
from coldrank.train.checks import validate

D1, LAST = 6, 5


def built(products, hidden=(D1, LAST)):
    torch.manual_seed(0)
    made = PNN(products=products, tower_hidden=hidden).build(SET, len(TASKS))
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return made.double().eval()


def product_layer(w, products, fields, n):
    """l_1 of unit n, with W_p^n as a matrix over all pairs."""
    z = torch.cat(fields)
    total = w["linear.bias"][n] + sum(w["linear.weight"][n, k] * z[k] for k in range(len(z)))
    if products != "outer":
        theta = w["inner.weight"][n]
        for i, f in enumerate(fields):
            for j, g in enumerate(fields):
                total = total + theta[i] * theta[j] * sum(f[k] * g[k] for k in range(WIDTH))
    if products != "inner":
        kernel = w["outer.weight"][n].view(WIDTH, WIDTH)
        for f in fields:
            for g in fields:
                total = total + sum(kernel[a, b] * f[a] * g[b] for a in range(WIDTH) for b in range(WIDTH))
    return total.clamp(min=0)


@pytest.mark.parametrize("products", ["inner", "outer", "both"])
def test_the_product_layer_is_that_of_the_paper(products):
    made, given = built(products), inputs(0.5)
    w, logits = {n: p.detach() for n, p in made.state_dict().items()}, made(*given).detach()
    assert logits.shape == (B, len(TASKS))
    for b in (1, 2):
        fields = [value * row for value, row in variables(made, given, b)]
        first = torch.stack([product_layer(w, products, fields, n) for n in range(D1)])
        second = (w["deep.layers.0.weight"] @ first + w["deep.layers.0.bias"]).clamp(min=0)
        torch.testing.assert_close(logits[b], w["out.weight"] @ second + w["out.bias"])
        assert 0 < (first > 0).sum() and (second > 0).any()


def test_products_are_of_what_the_settings_say():
    names = {p: set(built(p).state_dict()) for p in ("inner", "outer", "both")}
    assert "outer.weight" not in names["inner"] and "inner.weight" not in names["outer"]
    assert names["both"] == names["inner"] | names["outer"]


@pytest.mark.parametrize("products", ["inner", "outer", "both"])
def test_gradients_are_those_of_finite_differences(products):
    assert gradients_are_right(built(products, (D1,)), inputs(0.5))


def test_what_is_past_the_end_of_a_history_is_not_read():
    made, given = built("both"), inputs()
    assert torch.equal(made(leaked(given[0]), given[1]), made(*given))


def test_widths_that_differ_are_refused():
    with pytest.raises(UserError, match="model='pnn' needs fields of one width; dim is {'user_id': 4, 'item_id': 8"):
        validate(replace(BASE, model=PNN()))
    with pytest.raises(UserError, match="products='cross'"):
        validate(replace(BASE, model=PNN(products="cross")))
