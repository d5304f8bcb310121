"""Every module with a plain and a personalized version, small, with inputs: the table of the shared checks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coldrank.modules import (
    MLP,
    Linear,
    MMoE,
    MultiheadAttention,
    PosoLinear,
    PosoMLP,
    PosoMMoE,
    PosoMultiheadAttention,
    PosoTowers,
    Towers,
)

# No two sizes are equal where a module tells them apart.
PC, LENGTH, SEQUENCE, FOLDS = 7, 6, 8, 4
GATE = {"pc_dim": PC, "gate_hidden": 9}


@dataclass(kw_only=True, slots=True)
class Case:
    """`exact`: with neutral gates the two versions agree bit for bit, rather than up to rounding."""

    plain: Callable[[], nn.Module]
    poso: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    exact: bool = True


def x_inputs(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 5),)


def task_inputs(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 2, 5),)


def sequence_inputs(batch: int) -> tuple[Tensor, ...]:
    """The first sequence is empty, the second full, the others between."""
    lengths = torch.arange(batch).remainder(LENGTH)
    lengths[1:2] = LENGTH
    return torch.randn(batch, 5), torch.randn(batch, LENGTH, SEQUENCE), lengths


def attention_case(fold: str) -> Case:
    sizes = {"query_dim": 5, "sequence_dim": SEQUENCE, "heads": 2, "head_dim": 3}
    return Case(
        plain=lambda: MultiheadAttention(**sizes),
        poso=lambda: PosoMultiheadAttention(**sizes, **GATE, folds=FOLDS, fold=fold),  # type: ignore[arg-type]
        inputs=sequence_inputs,
        exact=fold == "none",
    )


CASES = {
    "linear": Case(plain=lambda: Linear(5, 4), poso=lambda: PosoLinear(5, 4, **GATE), inputs=x_inputs),
    "mlp": Case(plain=lambda: MLP(5, (4, 3)), poso=lambda: PosoMLP(5, (4, 3), **GATE), inputs=x_inputs),
    "mmoe": Case(plain=lambda: MMoE(5, 3, (4, 6), 2), poso=lambda: PosoMMoE(5, 3, (4, 6), 2, **GATE), inputs=x_inputs),
    "mmoe, one expert": Case(
        plain=lambda: MMoE(5, 1, (4,), 1), poso=lambda: PosoMMoE(5, 1, (4,), 1, **GATE), inputs=x_inputs
    ),
    "towers": Case(
        plain=lambda: Towers(5, (4, 3), 2), poso=lambda: PosoTowers(5, (4, 3), 2, **GATE), inputs=task_inputs
    ),
    **{f"attention {fold}": attention_case(fold) for fold in ("qkv", "kv", "v", "none")},
}


def randomize(module: nn.Module) -> nn.Module:
    """Double precision, every parameter drawn from N(0, 1/4): gates and biases away from their neutral start."""
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def double(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Floats in double precision; lengths as they are."""
    return tuple(x.double() if x.is_floating_point() else x for x in inputs)
