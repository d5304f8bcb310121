"""The deep interest network against the equations of Zhou et al., event by event, in float64."""

import math
from dataclasses import replace

import pytest
import torch
from embedded import gradients_are_right, static_of
from samples import TASKS
from test_gru4rec import BASE, LENGTHS, SET, B, built, derivatives, inputs, no_sequences

from coldrank.configs.base import history
from coldrank.data.errors import UserError
from coldrank.models.din import DIN, compared
from coldrank.models.features import FeatureSet, Table
from coldrank.train.checks import validate

KINDS = {"sum": DIN(unit_hidden=(5, 4), tower_hidden=(6, 3)), "softmax": DIN(tower_hidden=(6,), softmax=True)}


def layers(w, name, x):
    i = 0
    while f"{name}.layers.{i}.weight" in w:
        s = w[f"{name}.layers.{i}.weight"] @ x + w[f"{name}.layers.{i}.bias"]
        x = torch.stack([u if u > 0 else a * u for u, a in zip(s, w[f"{name}.alphas.{i}"], strict=True)])
        i += 1
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_events_are_weighed_by_the_candidate_as_in_the_paper(kind):
    made, (embedded, beside) = built(KINDS[kind]), inputs()
    w, logits = {n: p.detach() for n, p in made.state_dict().items()}, made(embedded, beside).detach()
    of_unit = {n.removeprefix("interests.history."): p for n, p in w.items() if n.startswith("interests.")}
    assert logits.shape == (B, len(TASKS))
    for b in range(B):
        q = embedded["item_id"][b]
        interest, weights, events = torch.zeros(32).double(), [], []
        for j in range(int(LENGTHS[0, b])):
            k, signals = embedded["hist_item_id"][b, j], embedded["hist_signals"][b, j]
            unit = layers(of_unit, "unit", torch.cat([q, k, signals, q - k, q * k]))
            weights.append(float(of_unit["weight.weight"][0] @ unit + of_unit["weight.bias"][0]))
            events.append(torch.cat([k, signals]))
        if kind == "softmax":
            weights = [math.exp(a) / sum(map(math.exp, weights)) for a in weights]
        for a, event in zip(weights, events, strict=True):
            interest += a * event
        x = layers(w, "deep", torch.cat([static_of(SET, embedded)[b], beside.dense[b], interest]))
        torch.testing.assert_close(logits[b], w["out.weight"] @ x + w["out.bias"])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind):
    assert gradients_are_right(built(KINDS[kind]), inputs())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("past", [float("nan"), float("inf")])
def test_what_is_past_the_end_of_a_history_reaches_neither_logits_nor_gradients(kind, past):
    made = built(KINDS[kind])
    for ours, wanted in zip(derivatives(made, inputs(past)), derivatives(made, inputs()), strict=True):
        assert wanted.isfinite().all() and torch.equal(ours, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_history_has_an_interest_of_zeros(kind):
    interest = built(KINDS[kind]).interests["history"]
    embedded, _ = inputs()
    events = torch.cat([embedded["hist_item_id"], embedded["hist_signals"]], 2)
    found = interest(embedded["item_id"], events, LENGTHS[0])
    assert found[0].tolist() == [0] * 32 and found[1:].abs().min() > 0


def test_units_begin_as_leaky_ones():
    """PReLU's alpha begins at 0.25, for each unit of the last dimension."""
    unit = DIN(unit_hidden=(5,)).build(SET, len(TASKS)).interests["history"].unit
    assert unit.alphas[0].tolist() == [0.25] * 5


def with_history(ids, **item):
    """`BASE` with a history of other columns, and fields changed of the item's id."""
    rest = no_sequences(BASE).features
    features = tuple(replace(f, **item) if f.name == "item_id" else f for f in rest)
    tables = tuple(replace(t, mapping="hash", min_count=1) for t in BASE.tables)
    return replace(BASE, model=DIN(), features=(*features, *history(6, ids, TASKS, dim=24)), tables=tables)


def test_each_id_of_a_history_is_compared_with_the_candidate_s_of_its_table():
    config = with_history({"hist_item_id": "item", "hist_tag": "tag"})
    assert compared(FeatureSet(config.features, config.tables), "history") == {
        "hist_item_id": "item_id",
        "hist_tag": "item_tags",
    }
    author = Table(name="author", rows=9, dim=4)
    config = with_history({"hist_author": "author", "hist_tag": "tag"})
    config = replace(config, tables=(*config.tables, author))
    assert compared(validate(config), "history") == {"hist_tag": "item_tags"}


def test_a_history_without_an_id_of_the_candidate_s_is_refused():
    validate(with_history({"hist_item_id": "item"}))
    wanted = "model='din': sequence 'history' has no id of a table that a feature of role 'item' reads"
    for config in (
        with_history({"hist_user": "user"}),
        with_history({"hist_item_id": "item"}, salted=True),
        with_history({"hist_item_id": "item"}, role="context"),
    ):
        with pytest.raises(UserError, match=wanted):
            validate(config)
    with pytest.raises(UserError, match="model='din' reads a history; no feature has role 'sequence'"):
        validate(replace(no_sequences(BASE), model=DIN()))
