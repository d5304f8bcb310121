"""The GRU ranker against the equations of Hidasi et al., event by event, in float64."""

from dataclasses import replace

import pytest
import torch
from embedded import apart, gradients_are_right, samples, static_of
from samples import TASKS
from tiny import sample_base

from coldrank.data.errors import UserError
from coldrank.models.embeddings import Inputs
from coldrank.models.features import FeatureSet
from coldrank.models.gru4rec import GRU4Rec
from coldrank.train.checks import validate

BASE = sample_base()
SET = FeatureSet((f for f in BASE.features if f.role != "pc"), BASE.tables)
SIZES = Inputs(SET)
B, NUMBERS, LENGTH, H = 4, len(SET.numbers), SIZES.sequence_lengths["history"], 3
LENGTHS = torch.tensor([[0, LENGTH, 1, 3]])


def built(model):
    torch.manual_seed(0)
    made = model.build(SET, len(TASKS))
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return made.double().eval()


def inputs(past=0.0):
    """past: what lies past the ends of histories."""
    torch.manual_seed(1)
    sequence = torch.randn(B, LENGTH, SIZES.sequence_dims["history"]).double()
    sequence[torch.arange(LENGTH) >= LENGTHS[0].unsqueeze(1)] = past
    static = torch.randn(B, SIZES.static_dim - NUMBERS).double()
    dense = torch.randn(B, NUMBERS).double()
    return apart(SET, static, {"history": sequence}, torch.empty(B, 0)), samples(dense, LENGTHS)


def derivatives(made, given):
    """Logits, and the gradients of the sum of their squares by embeddings and parameters."""
    embedded = {name: value.clone().requires_grad_() for name, value in given[0].items()}
    logits = made(embedded, given[1])
    return logits, *torch.autograd.grad(logits.square().sum(), [*embedded.values(), *made.parameters()])


def no_sequences(config):
    return replace(config, features=tuple(f for f in config.features if f.role != "sequence"))


@pytest.fixture
def made():
    return built(GRU4Rec(state_dim=H, tower_hidden=(6,)))


def state_after(w, events):
    h = torch.zeros(H).double()
    for x in events:
        of_event = w["of_event.weight"] @ x + w["of_event.bias"]
        z = torch.sigmoid(of_event[:H] + w["gates.weight"][:H] @ h)
        r = torch.sigmoid(of_event[H : 2 * H] + w["gates.weight"][H:] @ h)
        h = (1 - z) * h + z * torch.tanh(of_event[2 * H :] + w["candidate.weight"] @ (r * h))
    return h


def test_a_history_is_read_from_its_oldest_event_by_the_paper_s_equations(made):
    embedded, beside = inputs()
    w, logits = {n: p.detach() for n, p in made.state_dict().items()}, made(embedded, beside).detach()
    of_gru = {n.removeprefix("states.history."): p for n, p in w.items() if n.startswith("states.")}
    assert logits.shape == (B, len(TASKS))
    for b in range(B):
        n = int(LENGTHS[0, b])
        events = [SIZES.sequence(embedded, "history")[b, i] for i in range(n)]  # the latest first
        x = torch.cat([static_of(SET, embedded)[b], beside.dense[b], state_after(of_gru, events[::-1])])
        x = (w["deep.layers.0.weight"] @ x + w["deep.layers.0.bias"]).clamp(min=0)
        torch.testing.assert_close(logits[b], w["out.weight"] @ x + w["out.bias"])
        if n == LENGTH:
            assert not torch.allclose(state_after(of_gru, events), state_after(of_gru, events[::-1]), atol=1e-3)


def test_an_empty_history_has_a_state_of_zeros(made):
    states = made.states["history"](SIZES.sequence(inputs()[0], "history"), LENGTHS[0])
    assert states[0].tolist() == [0] * H and states[1:].abs().min() > 0


def test_gradients_are_those_of_finite_differences(made):
    assert gradients_are_right(made, inputs())


@pytest.mark.parametrize("past", [float("nan"), float("inf")])
def test_what_is_past_the_end_of_a_history_reaches_neither_logits_nor_gradients(made, past):
    for ours, wanted in zip(derivatives(made, inputs(past)), derivatives(made, inputs()), strict=True):
        assert wanted.isfinite().all() and torch.equal(ours, wanted)


def test_a_model_without_a_history_is_refused():
    validate(replace(BASE, model=GRU4Rec()))
    with pytest.raises(UserError, match="model='gru4rec' reads a history; no feature has role 'sequence'"):
        validate(replace(no_sequences(BASE), model=GRU4Rec()))
