"""The factorization machine against Rendle's equation 1, sample by sample, term by term, in float64."""

from dataclasses import replace

import pytest
import torch
from embedded import apart, samples, static_of
from samples import TASKS
from tiny import sample_base

from coldrank.data.errors import UserError
from coldrank.models.embeddings import Inputs
from coldrank.models.features import FeatureSet, Table
from coldrank.models.fm import FM
from coldrank.train.checks import validate

BASE = sample_base()
WIDTH = 8  # two tasks of a weight and three factors
FEATURES = tuple(replace(f, dim=WIDTH if f.dim else 0) for f in BASE.features if f.role != "pc")
SET = FeatureSet(FEATURES, tuple(Table(name=t.name, rows=t.rows, dim=WIDTH) for t in BASE.tables))
SIZES = Inputs(SET)
B, NUMBERS, LENGTH = 4, len(SET.numbers), SIZES.sequence_lengths["history"]
LENGTHS = torch.tensor([[0, LENGTH, 1, 3]])


@pytest.fixture
def made():
    torch.manual_seed(0)
    machine = FM().build(SET, len(TASKS))
    for p in machine.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return machine.double().eval()


def inputs(scale=1.0):
    torch.manual_seed(1)
    sequence = torch.randn(B, LENGTH, SIZES.sequence_dims["history"]).double()
    sequence = sequence * (torch.arange(LENGTH) < LENGTHS[0].unsqueeze(1)).unsqueeze(2)
    static = scale * torch.randn(B, SIZES.static_dim - NUMBERS).double()
    return apart(SET, static, {"history": sequence}, torch.empty(B, 0)), samples(
        torch.randn(B, NUMBERS).double(), LENGTHS
    )


def variables(machine, given, b):
    """Of a sample (x_i, row i) of every field; a row has, task by task, w_i and then v_i."""
    embedded, beside = given
    rows = [(1.0, row) for row in static_of(SET, embedded)[b].split(WIDTH)]
    n = int(LENGTHS[0, b])
    for name in SIZES.sequences["history"]:
        rows.append((1.0, sum((embedded[name][b, i] for i in range(n)), torch.zeros(WIDTH).double()) / max(n, 1)))
    return rows + [(float(beside.dense[b, i]), machine.numbers[i].detach()) for i in range(NUMBERS)]


def test_each_task_has_rendle_s_equation(made):
    given = inputs()
    logits, each = made(*given).detach(), WIDTH // len(TASKS)
    assert logits.shape == (B, len(TASKS)) and NUMBERS >= 3 and len(SIZES.sequences["history"]) == 2
    for b in range(B):
        of_sample = variables(made, given, b)
        for t in range(len(TASKS)):
            w = [float(row[t * each]) for _, row in of_sample]
            v = [row[t * each + 1 : (t + 1) * each] for _, row in of_sample]
            x = [value for value, _ in of_sample]
            wanted = float(made.bias[t].detach())
            for i in range(len(x)):
                wanted += w[i] * x[i]
                for j in range(i + 1, len(x)):
                    wanted += float(v[i] @ v[j]) * x[i] * x[j]
            assert float(logits[b, t]) == pytest.approx(wanted, abs=1e-12)


def test_gradients_are_those_of_finite_differences(made):
    given = inputs()
    embedded = {name: value.clone().requires_grad_() for name, value in given[0].items()}
    leaves = [*embedded.values(), made.bias, made.numbers]

    def of_leaves(*values):
        fresh = dict(zip(embedded, values, strict=False))
        state = {"bias": values[-2], "numbers": values[-1]}
        return torch.func.functional_call(made, state, (fresh, given[1]))

    assert torch.autograd.gradcheck(of_leaves, leaves)


def test_it_has_no_interactions_where_factors_are_zero(made):
    """Logits are then linear in the inputs: twice the weights, twice what they add."""
    each = WIDTH // len(TASKS)
    weights = torch.arange(WIDTH) % each == 0
    with torch.no_grad():
        made.numbers *= weights
    one, two = ({n: e * weights * scale for n, e in inputs()[0].items()} for scale in (1.0, 2.0))
    beside = samples(torch.zeros(B, NUMBERS).double(), LENGTHS)
    assert torch.allclose(made(two, beside) - made.bias, 2 * (made(one, beside) - made.bias))
    assert not torch.allclose(made(one, beside), made.bias.expand(B, -1))


def with_width(width):
    features = tuple(replace(f, dim=width if f.dim else 0) for f in BASE.features)
    return replace(BASE, features=features, tables=tuple(replace(t, dim=width) for t in BASE.tables), model=FM())


def test_widths_that_hold_no_weight_and_factors_are_refused():
    validate(with_width(4))
    with pytest.raises(UserError, match="model='fm' needs fields of one width; dim is {'user_id': 4, 'item_id': 8"):
        validate(replace(BASE, model=FM()))
    three = replace(with_width(4), tasks={n: BASE.tasks["like"] for n in ("like", "long_view", "click")})
    with pytest.raises(UserError, match="must be a multiple of 3, from 6 on; it is 4"):
        validate(three)
    many = replace(with_width(4), tasks={n: BASE.tasks["like"] for n in ("like", "long_view", "click", "follow")})
    with pytest.raises(UserError, match="must be a multiple of 4, from 8 on; it is 4"):
        validate(many)
