"""benchmarks/flops.py against counts by hand."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import sample_base

from coldrank.configs import base as parts
from coldrank.train.config import RunConfig

PATH = Path(__file__).parents[2] / "benchmarks/flops.py"
SPEC = importlib.util.spec_from_file_location("flops", PATH)
flops = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(flops)

T, L, PC = 2, 6, 28
STATIC = 4 + 8 + 12 + 16 + 16 + 20 + 3  # embeddings of user, item, tags, two counts and the gap; three numbers
SEQUENCE = 8 + 24


def by_hand(config: RunConfig) -> tuple[int, int]:
    """Parameters, and FLOPs as 2 x multiply-adds: each matrix is used once a sample, but for those noted."""
    m = config.model
    width, heads = m.heads * m.head_dim, m.heads
    (first, second), (hidden,) = m.expert_hidden, m.tower_hidden
    x = STATIC + width
    folds = m.mha_folds if m.poso_mha else 1
    matrices = STATIC * width + SEQUENCE * width * (1 + folds)
    matrices += m.experts * (x * first + first * second) + T * m.experts * x
    matrices += T * (second * hidden + hidden)
    biases = m.experts * (first + second) + T * (hidden + 1)
    gates = [width, heads * folds] if m.poso_mha else []
    gates += [m.experts] if m.poso_mmoe else []
    gates += [T * hidden] if m.poso_mlp else []
    matrices += sum(PC * m.gate_hidden + m.gate_hidden * out for out in gates)
    biases += sum(m.gate_hidden + out for out in gates)
    # Not parameters: the scores and the weighted sum over the positions, and the weighted sum over the experts.
    activations = 2 * heads * L * SEQUENCE + T * m.experts * second
    return matrices + biases, 2 * (matrices + activations)


@pytest.mark.parametrize("arm", [lambda c: c, parts.poso_mha, parts.poso_mmoe, parts.poso_mlp, parts.poso])
def test_counts_equal_those_by_hand(arm):
    config = arm(sample_base())
    config = replace(config, model=replace(config.model, expert_hidden=(16, 8), tower_hidden=(9,)))
    assert flops.measure(config) == by_hand(config)


def test_ratios_are_to_the_base():
    base = sample_base()
    rows = flops.table([parts.poso(base), base]).splitlines()
    cells = [[c.strip() for c in row.strip("|").split("|")] for row in rows[2:]]
    assert [row[0] for row in cells] == ["base", "poso"] and cells[0][2] == cells[0][4] == "1.0000"
    (parameters, count), poso = flops.measure(base), flops.measure(parts.poso(base))
    assert float(cells[1][2]) == pytest.approx(poso[0] / parameters, abs=1e-4)
    assert float(cells[1][4]) == pytest.approx(poso[1] / count, abs=1e-4)


def test_wider_leaves_code_and_gates_as_they_are():
    config = parts.poso(sample_base())
    wide = flops.wider(config, 8)
    assert wide.model.gate_hidden == config.model.gate_hidden and wide.model.head_dim == 8 * config.model.head_dim
    assert [f.dim for f in wide.features if f.role == "pc"] == [PC]
    assert [t.dim for t in wide.tables] == [8 * t.dim for t in config.tables]
