"""The ranker against the same composition written out sample by sample, and what its switches change.

b sample, t task, e expert, h head, n fold.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from embedded import apart, samples, static_of
from samples import TASKS
from tiny import sample_base
from torch import Tensor

from coldrank.models.embeddings import Embedded, Inputs
from coldrank.models.features import Feature, FeatureSet
from coldrank.models.ranker import Ranker, RankerModule

CONFIG = sample_base()
RECENT = Feature(name="recent_item_id", role="sequence", kind="id", table="item", sequence="recent", length=4)
FEATURES = FeatureSet((*CONFIG.features, RECENT), CONFIG.tables)
SIZES = Inputs(FEATURES)
DENSE = len(FEATURES.numbers)
LENGTH = SIZES.sequence_lengths["history"]
LENGTHS = torch.tensor([[0, LENGTH, 1, 3, 2], [4, 0, 2, 1, 3]])
B = LENGTHS.shape[1]
POSO = {"poso_mha": True, "poso_mmoe": True, "poso_mlp": True}


def ranker(**changes: object) -> RankerModule:
    """A fresh one from seed 0, in double precision."""
    torch.manual_seed(0)
    model: RankerModule = RankerModule(replace(CONFIG.model, **changes), FEATURES, len(TASKS)).double()
    return model


def randomized(**changes: object) -> RankerModule:
    """Every parameter drawn from N(0, 1/4), gates, positions and biases among them."""
    model = ranker(**changes)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture
def inputs() -> tuple[Embedded, SimpleNamespace]:
    torch.manual_seed(1)
    sequence = torch.randn(B, LENGTH, SIZES.sequence_dims["history"]).double()
    recent = torch.randn(B, 4, SIZES.sequence_dims["recent"]).double()
    static, pc = torch.randn(B, SIZES.static_dim - DENSE).double(), torch.randn(B, SIZES.pc_dim).double()
    embedded = apart(FEATURES, static, {"history": sequence, "recent": recent}, pc)
    return embedded, samples(torch.randn(B, DENSE).double(), LENGTHS)


def gate(weights: dict[str, Tensor], name: str, pc: Tensor, width: int, scale: float) -> Tensor:
    """C sigmoid(W2 relu(W1 pc + b1) + b2) of one sample; ones where the part has no gate."""
    if f"{name}.hidden.weight" not in weights:
        return torch.ones(width).double()
    hidden = (weights[f"{name}.hidden.weight"] @ pc + weights[f"{name}.hidden.bias"]).clamp(min=0)
    return scale * torch.sigmoid(weights[f"{name}.output.weight"] @ hidden + weights[f"{name}.output.bias"])


def attention(w: dict[str, Tensor], m: Ranker, name: str, static: Tensor, sequence: Tensor, pc: Tensor) -> Tensor:
    """softmax(q_h . (g^k * K x) / sqrt(d)) over the sample's own positions, times sum_n g_hn V_hn x, of one sample."""
    at, d, folds = f"attention.{name}", m.head_dim, m.mha_folds if m.poso_mha else 1
    key_gate = gate(w, f"{at}.key_gate", pc, m.heads * d, m.gate_scale).view(m.heads, d)
    value_gate = gate(w, f"{at}.value_gate", pc, m.heads * folds, m.gate_scale).view(m.heads, folds)
    queries = (w[f"{at}.query.weight"] @ static).view(m.heads, d)
    heads = []
    for h in range(m.heads):
        keys = [key_gate[h] * (w[f"{at}.key"][h] @ x) for x in sequence]
        folded = w[f"{at}.value"][h].split(d, 1)
        values = [sum(value_gate[h, n] * (x @ folded[n]) for n in range(folds)) for x in sequence]
        scores = [torch.exp(queries[h] @ k / d**0.5) for k in keys]
        parts = [s / sum(scores) * v for s, v in zip(scores, values, strict=True)]
        heads.append(sum(parts, torch.zeros(d).double()))
    return torch.cat(heads)


def mmoe(w: dict[str, Tensor], m: Ranker, x: Tensor, pc: Tensor) -> list[Tensor]:
    """sum_e g_e softmax(W^t x)_e relu(... relu(W_e x + b_e)) for each task, of one sample."""
    first = (w["mmoe.experts.first.weight"] @ x + w["mmoe.experts.first.bias"]).view(m.experts, -1)
    experts = []
    for e in range(m.experts):
        y = first[e].clamp(min=0)
        for i in range(len(m.expert_hidden) - 1):
            layer = f"mmoe.experts.deeper.{i}"
            y = (y @ w[f"{layer}.weight"][e] + w[f"{layer}.bias"][e, 0]).clamp(min=0)
        experts.append(y)
    gates = gate(w, "mmoe.gate", pc, m.experts, m.gate_scale)
    shares = [torch.softmax(part, 0) for part in (w["mmoe.task_gate.weight"] @ x).split(m.experts)]
    return [sum(gates[e] * share[e] * experts[e] for e in range(m.experts)) for share in shares]


def tower(w: dict[str, Tensor], m: Ranker, t: int, x: Tensor, pc: Tensor) -> Tensor:
    """Gated relu layers and the logit of one task and sample."""
    for i, width in enumerate(m.tower_hidden):
        gates = gate(w, f"towers.gates.{i}", pc, len(TASKS) * width, m.gate_scale)[t * width : (t + 1) * width]
        x = gates * (x @ w[f"towers.layers.{i}.weight"][t] + w[f"towers.layers.{i}.bias"][t, 0]).clamp(min=0)
    return (x @ w["towers.logit.weight"][t] + w["towers.logit.bias"][t, 0])[0]


def naive(model: RankerModule, m: Ranker, embedded: Embedded, beside: SimpleNamespace) -> Tensor:
    w = {name: p.detach() for name, p in model.named_parameters()}
    logits = []
    for b in range(B):
        static = torch.cat([static_of(FEATURES, embedded)[b], beside.dense[b]])
        pc = {"feature": embedded["pc"][b], "static": static, "constant": torch.ones(1).double()}[m.pc]
        read = []
        for name, of_samples in zip(("history", "recent"), beside.sequence_lengths, strict=True):
            sequence = SIZES.sequence(embedded, name)[b, : of_samples[b]]
            if m.positions:
                sequence = sequence + w[f"positions.{name}"][: of_samples[b]]
            read.append(attention(w, m, name, static, sequence, pc))
        x = torch.cat([static, *read])
        logits.append(torch.stack([tower(w, m, t, y, pc) for t, y in enumerate(mmoe(w, m, x, pc))]))
    return torch.stack(logits)


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"poso_mha": True},
        {"poso_mmoe": True},
        {"poso_mlp": True},
        POSO,
        POSO | {"pc": "constant"},
        POSO | {"pc": "static"},
    ],
    ids=["base", "mha", "mmoe", "mlp", "poso", "constant", "static"],
)
def test_logits_equal_the_composition_written_out(parts, positions, inputs):
    changes = {**parts, "positions": positions, "gate_scale": 1.7, "tower_hidden": (4, 3)}
    model = randomized(**changes)
    logits = model(*inputs)
    assert logits.shape == (B, len(TASKS))
    torch.testing.assert_close(logits, naive(model, replace(CONFIG.model, **changes), *inputs))


@pytest.mark.parametrize(
    ("switch", "added"),
    [
        ("poso_mha", tuple(f"attention.{s}.{k}_gate." for s in ("history", "recent") for k in ("key", "value"))),
        ("poso_mmoe", ("mmoe.gate.",)),
        ("poso_mlp", ("towers.gates.",)),
    ],
)
def test_a_switch_changes_its_part_alone(switch, added):
    base, poso = (dict(ranker(**changes).named_parameters()) for changes in ({}, {switch: True}))
    assert base.keys() < poso.keys()
    new = poso.keys() - base.keys()
    assert all(name.startswith(added) for name in new)
    assert all(any(name.startswith(part) for name in new) for part in added)


@pytest.mark.parametrize("positions", [False, True])
def test_base_and_poso_start_from_the_same_plain_weights(positions, inputs):
    base, poso = ranker(positions=positions), ranker(positions=positions, **POSO)
    values = dict(poso.named_parameters())
    for name, value in base.named_parameters():
        if name in ("attention.history.value", "attention.recent.value"):
            folded = values.pop(name)
            torch.testing.assert_close(
                folded.unflatten(2, (CONFIG.model.mha_folds, -1)).sum(2), value, atol=1e-6, rtol=0
            )
        else:
            assert torch.equal(values[name], value), name
    torch.testing.assert_close(poso(*inputs), base(*inputs), atol=1e-6, rtol=0)


def test_a_constant_code_gives_one_output_whatever_the_avc(inputs):
    embedded, beside = inputs
    other = embedded | {"pc": torch.randn_like(embedded["pc"])}
    constant, feature = (randomized(**POSO, pc=pc) for pc in ("constant", "feature"))
    assert torch.equal(constant(embedded, beside), constant(other, beside))
    assert (feature(embedded, beside) != feature(other, beside)).all()


@pytest.mark.parametrize("changes", [{}, POSO], ids=["base", "poso"])
def test_an_empty_history_is_finite_and_reads_no_position(changes, inputs):
    embedded, beside = inputs
    model = randomized(**changes, positions=True)
    history = {name: embedded[name].clone().requires_grad_() for name in SIZES.sequences["history"]}
    logits = model(embedded | history, samples(beside.dense, torch.zeros_like(LENGTHS)))
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert not any(x.grad.any() for x in history.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_positions_start_without_effect_and_learn(inputs):
    with_positions, without = ranker(positions=True), ranker()
    assert torch.equal(with_positions(*inputs), without(*inputs))
    with_positions(*inputs).sum().backward()
    assert with_positions.positions["history"].grad.any(1).all(), "every position has a gradient"


def test_personalized_without_a_code_is_refused():
    plain = FeatureSet([f for f in CONFIG.features if f.role != "pc"], CONFIG.tables)
    wrong = replace(CONFIG.model, poso_mlp=True).problem(plain, len(TASKS))
    assert wrong.startswith("model.pc='feature', but no feature has role 'pc'")
    RankerModule(replace(CONFIG.model, poso_mlp=True, pc="constant"), plain, len(TASKS))
