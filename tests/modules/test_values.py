"""Values against naive references in double precision, written with loops from the equations of POSO.

b sample, t task, i expert or fold, h head, l position. Weights are drawn at random, gates included.
"""

import math

import pytest
import torch
from cases import FOLDS, GATE, PC, SEQUENCE, double, randomize, sequence_inputs
from torch import Tensor, nn

from coldrank.modules import (
    MLP,
    Linear,
    MMoE,
    MultiheadAttention,
    PersonalizedGate,
    PosoLinear,
    PosoMLP,
    PosoMMoE,
    PosoMultiheadAttention,
    PosoTowers,
    Towers,
)

B = 9


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def code() -> Tensor:
    return torch.randn(B, PC).double()


def naive_gate(gate: PersonalizedGate, pc: Tensor) -> Tensor:
    """C * sigmoid(W2 relu(W1 pc + b1) + b2) of one sample."""
    hidden = (gate.hidden.weight @ pc + gate.hidden.bias).clamp(min=0)
    return gate.scale / (1 + torch.exp(-(gate.output.weight @ hidden + gate.output.bias)))


def naive_fc(layer: nn.Linear, x: Tensor) -> Tensor:
    return (layer.weight @ x + layer.bias).clamp(min=0)


def test_gate() -> None:
    gate = PersonalizedGate(PC, 6, hidden=4, scale=1.7)
    assert torch.equal(gate(code().float()), torch.full((B, 6), 0.85)), "a fresh gate is scale / 2"
    randomize(gate)
    pc = code()
    torch.testing.assert_close(gate(pc), torch.stack([naive_gate(gate, pc[b]) for b in range(B)]))


def test_linear_eq_10() -> None:
    x, pc = torch.randn(B, 5).double(), code()
    plain, poso = Linear(5, 4), PosoLinear(5, 4, **GATE)
    randomize(plain), randomize(poso)
    rows = [plain.linear.weight @ x[b] + plain.linear.bias for b in range(B)]
    torch.testing.assert_close(plain(x), torch.stack(rows))
    rows = [naive_gate(poso.gate, pc[b]) * (poso.linear.weight @ x[b] + poso.linear.bias) for b in range(B)]
    torch.testing.assert_close(poso(x, pc), torch.stack(rows))


def test_mlp_eq_11() -> None:
    x, pc = torch.randn(B, 5).double(), code()
    plain, poso = MLP(5, (4, 3)), PosoMLP(5, (4, 3), **GATE)
    randomize(plain), randomize(poso)
    for b in range(B):
        y, gated = x[b], x[b]
        for i in range(2):
            y = naive_fc(plain.layers[i], y)  # type: ignore[arg-type]
            gated = naive_gate(poso.gates[i], pc[b]) * naive_fc(poso.layers[i], gated)  # type: ignore[arg-type]
        torch.testing.assert_close(plain(x)[b], y)
        torch.testing.assert_close(poso(x, pc)[b], gated)


@pytest.mark.parametrize("experts", [1, 3])
def test_mmoe_eq_1_2_17_18(experts: int) -> None:
    x, pc = torch.randn(B, 5).double(), code()
    for module in (MMoE(5, experts, (4, 6), tasks=2), PosoMMoE(5, experts, (4, 6), tasks=2, **GATE)):
        randomize(module)
        expected = torch.zeros(B, 2, 6).double()
        for b in range(B):
            pc_gate = naive_gate(module.gate, pc[b]) if isinstance(module, PosoMMoE) else torch.ones(experts)
            for t in range(2):
                scores = module.task_gate.weight.view(2, experts, 5)[t] @ x[b]
                task_gate = scores.exp() / scores.exp().sum()
                for i in range(experts):
                    expected[b, t] += pc_gate[i] * task_gate[i] * naive_expert(module, i, x[b])
        torch.testing.assert_close(module(x, pc), expected)


def naive_expert(module: MMoE | PosoMMoE, i: int, x: Tensor) -> Tensor:
    first, second = module.experts.first, module.experts.deeper[0]
    mine = slice(4 * i, 4 * i + 4)
    hidden = (first.weight[mine] @ x + first.bias[mine]).clamp(min=0)
    return (hidden @ second.weight[i] + second.bias[i, 0]).clamp(min=0)  # type: ignore[index]


def test_towers_are_one_mlp_per_task() -> None:
    x, pc = torch.randn(B, 2, 5).double(), code()
    for module in (Towers(5, (4, 3), tasks=2), PosoTowers(5, (4, 3), tasks=2, **GATE)):
        randomize(module)
        for b in range(B):
            for t in range(2):
                y = x[b, t]
                for i, layer in enumerate(module.layers):
                    y = (y @ layer.weight[t] + layer.bias[t, 0]).clamp(min=0)  # type: ignore[index]
                    if isinstance(module, PosoTowers):
                        gates = naive_gate(module.gates[i], pc[b])  # type: ignore[arg-type]
                        y = gates.view(2, -1)[t] * y
                logit = (y @ module.logit.weight[t] + module.logit.bias[t, 0]).squeeze()
                torch.testing.assert_close(module(x, pc)[b, t], logit)


def test_towers_without_hidden_layers_are_linear() -> None:
    towers = Towers(5, (), tasks=2)
    x = torch.randn(B, 2, 5)
    expected = torch.einsum("btd,td->bt", x, towers.logit.weight[:, :, 0]) + towers.logit.bias[:, 0, 0]
    torch.testing.assert_close(towers(x), expected)


def naive_head(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Eq. 12 for one sample, head and fold: keys, values: [valid positions, head_dim]."""
    if not len(keys):
        return torch.zeros(values.shape[1]).double()
    scores = torch.stack([q @ key for key in keys]) / math.sqrt(len(q))
    weights = scores.exp() / scores.exp().sum()
    return sum((weights[position] * values[position] for position in range(len(keys))), torch.zeros_like(values[0]))


def test_attention_eq_12() -> None:
    module = MultiheadAttention(query_dim=5, sequence_dim=SEQUENCE, heads=2, head_dim=3)
    randomize(module)
    query, sequence, lengths = double(sequence_inputs(B))
    for b in range(B):
        x = sequence[b, : lengths[b]]
        heads = [
            naive_head((module.query.weight @ query[b])[3 * h : 3 * h + 3], x @ module.key[h].T, x @ module.value[h])
            for h in range(2)
        ]
        torch.testing.assert_close(module(query, sequence, lengths)[b], torch.cat(heads))


@pytest.mark.parametrize("folds", [1, FOLDS])
@pytest.mark.parametrize("fold", ["v", "none"])
def test_attention_eq_14(fold: str, folds: int) -> None:
    """K, the N-fold V and their gated sum are formed for every position, as the equation has them."""
    module = PosoMultiheadAttention(5, SEQUENCE, 2, 3, **GATE, folds=folds, fold=fold)  # type: ignore[arg-type]
    randomize(module)
    (query, sequence, lengths), pc = double(sequence_inputs(B)), code()
    for b in range(B):
        x = sequence[b, : lengths[b]]
        key_gate = naive_gate(module.key_gate, pc[b]).view(2, 3)  # type: ignore[arg-type]
        value_gate = naive_gate(module.value_gate, pc[b]).view(2, -1)
        q = (module.query.weight @ query[b]).view(2, 3)
        heads = []
        for h in range(2):
            folded = (x @ module.value[h]).view(len(x), folds if fold == "v" else 1, 3)
            gates = value_gate[h].view(-1, 1) if fold == "v" else value_gate[h]
            heads.append(naive_head(q[h], key_gate[h] * (x @ module.key[h].T), (gates * folded).sum(1)))
        torch.testing.assert_close(module(query, sequence, lengths, pc)[b], torch.cat(heads))


@pytest.mark.parametrize("fold", ["qkv", "kv"])
def test_attention_eq_13(fold: str) -> None:
    """Each fold attends on its own; one row of Table 7 shares Q."""
    module = PosoMultiheadAttention(5, SEQUENCE, 2, 3, **GATE, folds=FOLDS, fold=fold)  # type: ignore[arg-type]
    randomize(module)
    (query, sequence, lengths), pc = double(sequence_inputs(B)), code()
    for b in range(B):
        x = sequence[b, : lengths[b]]
        gates = naive_gate(module.value_gate, pc[b]).view(FOLDS, 2)
        q = (module.query.weight @ query[b]).view(-1, 2, 3).expand(FOLDS, -1, -1)
        expected = torch.zeros(2, 3).double()
        for i in range(FOLDS):
            for h in range(2):
                keys, values = x @ module.key[2 * i + h].T, x @ module.value[2 * i + h]
                expected[h] += gates[i, h] * naive_head(q[i, h], keys, values)
        torch.testing.assert_close(module(query, sequence, lengths, pc)[b], expected.flatten())
