"""PEPNet against its equations, sample by sample."""

import pytest
import torch
from embedded import apart, samples
from samples import TASKS
from tiny import sample_base

from coldrank.models.embeddings import Inputs
from coldrank.models.features import FeatureSet
from coldrank.models.pepnet import PEPNet, PEPNetModule

BASE = sample_base()
SET = FeatureSet(BASE.features, BASE.tables)
SIZES = Inputs(SET)
B, DENSE, LENGTH = 4, len(SET.numbers), SIZES.sequence_lengths["history"]
PLACES = {name: i for i, name in enumerate(("user_id", "item_id"))}


def config(**fields: object) -> PEPNet:
    sizes = {"heads": 2, "head_dim": 3, "experts": 2, "expert_hidden": (6, 5), "tower_hidden": (4, 3), "gate_hidden": 7}
    return PEPNet(**(sizes | fields))  # type: ignore[arg-type]


def built(std: float | None, **fields: object) -> PEPNetModule:
    torch.manual_seed(0)
    made = config(**fields).build(SET, len(TASKS))
    for p in made.parameters() if std else ():
        torch.nn.init.normal_(p, std=std or 0)
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


def gate(w, name, x):
    hidden = (w[f"{name}.hidden.weight"] @ x + w[f"{name}.hidden.bias"]).clamp(min=0)
    return 2 / (1 + torch.exp(-(w[f"{name}.output.weight"] @ hidden + w[f"{name}.output.bias"])))


def test_the_gates_are_those_of_the_paper(inputs):
    made = built(0.3)
    embedded, _ = inputs
    w, logits = made.state_dict(), made(*inputs)
    x, pc = made.ranker.joined(*inputs)
    for b in range(B):
        # Eq. 4 and 5: the domain beside what is gated.
        gated = gate(w, "epnet", torch.cat([pc[b], x[b]])) * x[b]
        tasks = made.ranker.mmoe(gated.unsqueeze(0))[0]
        # Eq. 6 and 7: who is asked about what, beside what EPNet gives.
        prior = torch.cat([embedded["user_id"][b], embedded["item_id"][b], gated])
        for t in range(len(TASKS)):
            h = tasks[t]
            for i in range(2):
                layer = made.ranker.towers.layers[i]
                h = (h @ layer.weight[t] + layer.bias[t]).clamp(min=0)
                h = gate(w, f"ranker.towers.gates.{i}", prior).view(len(TASKS), -1)[t] * h
            last = made.ranker.towers.logit
            assert torch.allclose(logits[b, t], (h @ last.weight[t] + last.bias[t]).squeeze())


def test_gates_do_not_train_what_they_read_beside_the_prior(inputs):
    """sg of Eq. 4 and 6: without the prior's and the code's share, inputs learn through what is gated alone."""
    made = built(0.3, epnet=False)
    embedded, beside = inputs
    name = next(f.name for f in SET.features if f.name not in PLACES and f.role == "context" and f.kind != "number")
    leaf = embedded[name].clone().requires_grad_()
    made(embedded | {name: leaf}, beside).sum().backward()
    x, _ = made.ranker.joined(embedded, beside)
    fixed = torch.cat([*(embedded[n] for n in made.prior), x.detach()], 1)
    other = embedded[name].clone().requires_grad_()
    y, _ = made.ranker.joined(embedded | {name: other}, beside)
    made.ranker.towers(made.ranker.mmoe(y), fixed).sum().backward()
    assert torch.allclose(leaf.grad, other.grad) and leaf.grad.abs().sum() > 0


def test_a_fresh_model_is_the_plain_ranker(inputs):
    torch.manual_seed(0)
    plain = config().plain().build(SET, len(TASKS)).double().eval()
    assert torch.equal(built(None)(*inputs), plain(*inputs))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prior": ("nobody",)}, "model.prior: 'nobody' is no embedded feature outside sequences"),
        ({"prior": ()}, "model.prior is empty"),
        ({"tower_hidden": ()}, "the towers have no hidden layer to gate"),
    ],
)
def test_what_cannot_work_is_named(fields, message):
    assert message in config(**fields).problem(SET, BASE.tasks)


def test_without_a_code_epnet_is_refused():
    features = FeatureSet([f for f in BASE.features if f.role != "pc"], BASE.tables)
    assert "no feature has role 'pc'" in config().problem(features, BASE.tasks)
    assert config(epnet=False).problem(features, BASE.tasks) == ""
