"""The factorization machine against Rendle's equation 1, sample by sample, term by term, in float64."""

from dataclasses import replace

import pytest
import torch
from embedded import apart, gradients_are_right, samples, static_of
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


def leaked(embedded):
    """The same with NaN past the ends of histories."""
    past = torch.arange(LENGTH) >= LENGTHS[0].unsqueeze(1)
    parts = {n: e.masked_fill(past.unsqueeze(2), float("nan")) if e.dim() == 3 else e for n, e in embedded.items()}
    assert any(e.isnan().any() for e in parts.values())
    return parts


def embedded_rows(given, b):
    """Of a sample the row of every field but those of numbers; of a history the mean."""
    embedded, _ = given
    rows = list(static_of(SET, embedded)[b].split(WIDTH))
    n = int(LENGTHS[0, b])
    for name in SIZES.sequences["history"]:
        rows.append(sum((embedded[name][b, i] for i in range(n)), torch.zeros(WIDTH).double()) / max(n, 1))
    return rows


def variables(machine, given, b):
    """Of a sample (x_i, row i) of every field; in an FM a row has, task by task, w_i and then v_i."""
    rows = [(1.0, row) for row in embedded_rows(given, b)]
    return rows + [(float(given[1].dense[b, i]), machine.numbers[i].detach()) for i in range(NUMBERS)]


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
    assert gradients_are_right(made, inputs())


def test_what_is_past_the_end_of_a_history_is_not_read(made):
    given = inputs()
    assert torch.equal(made(leaked(given[0]), given[1]), made(*given))


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
