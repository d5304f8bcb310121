"""The rankers from the literature against their equations, sample by sample."""

from dataclasses import replace

import pytest
import torch
from embedded import apart, samples, static_of
from samples import TASKS
from tiny import sample_base

from coldrank.data.errors import UserError
from coldrank.models.component import find
from coldrank.models.deepfm import DeepFM
from coldrank.models.embeddings import Inputs
from coldrank.models.features import FeatureSet, Table
from coldrank.models.model import Model
from coldrank.train.checks import validate
from coldrank.train.load import load

BASE = sample_base()
# One width, as DeepFMModule wants it.
FEATURES = tuple(replace(f, dim=4 if f.dim else 0) for f in BASE.features)
TABLES = tuple(Table(name=t.name, rows=t.rows, dim=4) for t in BASE.tables)
SET = FeatureSet(FEATURES, TABLES)
SIZES = Inputs(SET)
B, DENSE, LENGTH = 4, len(SET.numbers), SIZES.sequence_lengths["history"]


def model(kind):
    torch.manual_seed(0)
    made = find(Model, kind)(tower_hidden=(6, 5), **({"crosses": 2} if kind == "dcn" else {})).build(SET, len(TASKS))
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return made.double().eval()


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    lengths = torch.tensor([[0, LENGTH, 1, 3]])
    sequence = torch.randn(B, LENGTH, SIZES.sequence_dims["history"]).double()
    sequence = sequence * (torch.arange(LENGTH) < lengths[0].unsqueeze(1)).unsqueeze(2)
    static = torch.randn(B, SIZES.static_dim - DENSE).double()
    pc = torch.randn(B, SIZES.pc_dim).double()
    return apart(SET, static, {"history": sequence}, pc), samples(torch.randn(B, DENSE).double(), lengths)


def flat(inputs, b):
    embedded, beside = inputs
    n = int(beside.sequence_lengths[0, b])
    mean = (
        SIZES.sequence(embedded, "history")[b, :n].mean(0)
        if n
        else torch.zeros(SIZES.sequence_dims["history"]).double()
    )
    return torch.cat([static_of(SET, embedded)[b], beside.dense[b], mean])


def mlp(w, x):
    for i in range(2):
        x = (w[f"deep.layers.{i}.weight"] @ x + w[f"deep.layers.{i}.bias"]).clamp(min=0)
    return x


def linear(w, name, x):
    return w[f"{name}.weight"] @ x + w[f"{name}.bias"]


@pytest.mark.parametrize("kind", ["wide_deep", "deepfm"])
def test_wide_and_deep_and_pairs(kind, inputs):
    made = model(kind)
    w, logits = made.state_dict(), made(*inputs)
    for b in range(B):
        x = flat(inputs, b)
        wanted = linear(w, "wide", x) + linear(w, "out", mlp(w, x))
        if kind == "deepfm":
            fields = static_of(SET, inputs[0])[b].split(4)
            wanted = wanted + sum(f @ g for i, f in enumerate(fields) for g in fields[:i])
        assert torch.allclose(logits[b], wanted)


def test_crosses(inputs):
    made = model("dcn")
    w, logits = made.state_dict(), made(*inputs)
    for b in range(B):
        x = first = flat(inputs, b)
        for i in range(2):
            x = first * linear(w, f"crosses.{i}", x) + x
        assert torch.allclose(logits[b], linear(w, "out", torch.cat([x, mlp(w, first)])))


def test_fields_of_several_widths_and_gates_are_refused():
    with pytest.raises(UserError, match="deepfm' needs fields of one width"):
        validate(replace(BASE, model=DeepFM()))
    with pytest.raises(UserError, match="no field 'model.poso_mlp'"):
        load("coldrank.configs.kuairand:base", ["model=dcn", "model.poso_mlp=true"])
