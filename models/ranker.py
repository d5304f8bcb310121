"""The ranker (POSO, section 3 and Fig. 3): one MHA per sequence, concatenation, MMoE over tasks, towers, one logit per
task.

B batch, L sequence length, D width, T tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from coldrank.models.batch import SampleView
from coldrank.models.component import Dropout, Widths
from coldrank.models.embeddings import Embedded, Inputs
from coldrank.models.features import FeatureSet
from coldrank.models.heads.head import Head
from coldrank.models.model import Model, ModelModule
from coldrank.modules import (
    MMoE,
    MultiheadAttention,
    PosoMMoE,
    PosoMultiheadAttention,
    PosoTowers,
    Towers,
)
from coldrank.modules.gate import spread_gates


@dataclass(kw_only=True, slots=True)
class Ranker(Model):
    """The ranker's sizes, and which parts are personalized."""

    heads: PositiveInt = 4
    """Heads of the attention over each sequence."""
    head_dim: PositiveInt = 16
    """Width of a head."""
    positions: bool = False
    """Adds a learned vector per position to a sequence, so that attention can tell recent from old."""
    experts: PositiveInt = 4
    """Experts of the MMoE."""
    expert_hidden: Widths = (256, 128)
    """Widths of an expert's layers."""
    tower_hidden: Widths = (64,)
    """Widths of the hidden layers of a task's tower."""
    dropout: Dropout = 0.0
    """Share of the units of experts and towers that a training step leaves out."""
    poso_mha: bool = False
    """Personalizes the attention (POSO, Eq. 14)."""
    poso_mmoe: bool = False
    """Personalizes the MMoE (POSO, Eq. 17 and 18)."""
    poso_mlp: bool = False
    """Personalizes the towers (POSO, Eq. 11)."""
    pc: Literal["feature", "static", "constant"] = "feature"
    """What feeds the gates: the features of role `pc`; `static`, every input outside the sequences ("all features" of
    POSO's Table 6); or a constant, the control that has POSO's parameters only."""
    gate_hidden: PositiveInt = 32
    """Width of a gate's hidden layer."""
    gate_scale: PositiveFloat = 2.0
    """C of POSO's Eq. 6."""
    gate_init: NonNegativeFloat = 0.0
    """Deviation of the first weights of the gates' last layers. At 0 every gate starts at `gate_scale / 2`, and the
    ranker as the plain one."""
    mha_folds: PositiveInt = 4
    """Gates per head of POSO(MHA), each for so many neighbouring units."""
    mha_fold: Literal["qkv", "kv", "v", "none"] = "v"
    """The row of POSO's Table 7; `v` is the paper's choice (Eq. 14)."""

    @property
    def personalized(self) -> bool:
        return self.poso_mha or self.poso_mmoe or self.poso_mlp

    @property
    def reads_pc(self) -> bool:
        return self.personalized and self.pc == "feature"

    def build(self, features: FeatureSet, tasks: int) -> "RankerModule":
        return RankerModule(self, features, tasks)

    def problem(self, features: FeatureSet, tasks: Mapping[str, Head], *, sequences: bool = False) -> str:
        if self.personalized and self.pc == "feature" and not any(f.role == "pc" for f in features.features):
            return "model.pc='feature', but no feature has role 'pc'; declare one, or model.pc=constant"
        return ""

    def idle(self, features: FeatureSet) -> list[tuple[bool, tuple[str, ...], str]]:
        folds = ("mha_folds", "mha_fold")
        gates = ("pc", "gate_hidden", "gate_scale", "gate_init", *folds)
        history = ("heads", "head_dim", "positions", "poso_mha")
        no_part = "where no part is personalized; set model.poso_mha, poso_mmoe or poso_mlp"
        return [
            (not self.personalized, gates, no_part),
            (not self.poso_mha, folds, "without model.poso_mha"),
            (self.mha_fold == "none", ("mha_folds",), "with model.mha_fold='none', which has no folds"),
            (not features.sequences, history, "without a sequence among the features"),
        ]


class RankerModule(ModelModule):
    """Embedded features -> logits [B, T]."""

    def __init__(self, config: Ranker, features: FeatureSet, tasks: int) -> None:
        super().__init__()
        self.inputs = inputs = Inputs(features)
        self.pc = config.pc
        static_dim = inputs.static_dim
        pc_dim = {"feature": inputs.pc_dim, "static": static_dim, "constant": 1}[config.pc]
        self.attention = nn.ModuleDict(
            {name: _attention(config, static_dim, dim, pc_dim) for name, dim in inputs.sequence_dims.items()}
        )
        lengths = {name: inputs.sequence_lengths[name] for name in self.attention if config.positions}
        self.positions = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(n, inputs.sequence_dims[name])) for name, n in lengths.items()}
        )
        self.width = static_dim + len(self.attention) * config.heads * config.head_dim
        mmoe = (self.width, config.experts, config.expert_hidden, tasks)
        towers = (config.expert_hidden[-1], config.tower_hidden, tasks)
        gate, drop = (pc_dim, config.gate_hidden, config.gate_scale), config.dropout
        self.mmoe = PosoMMoE(*mmoe, *gate, drop) if config.poso_mmoe else MMoE(*mmoe, drop)
        self.towers = PosoTowers(*towers, *gate, drop) if config.poso_mlp else Towers(*towers, drop)
        spread_gates(self, config.gate_init)

    def forward(self, embedded: Embedded, batch: SampleView) -> Tensor:
        """Logits [B, T]."""
        logits: Tensor = self.towers(*self.represent(embedded, batch))
        return logits

    def represent(self, embedded: Embedded, batch: SampleView) -> tuple[Tensor, Tensor]:
        """What the towers read: representations of the tasks [B, T, D], personalization code."""
        x, pc = self.joined(embedded, batch)
        return self.mmoe(x, pc), pc

    def joined(self, embedded: Embedded, batch: SampleView) -> tuple[Tensor, Tensor]:
        """What the MMoE reads: all inputs, the sequences attended to, side by side [B, D]; personalization code."""
        static = self.inputs.static(embedded, batch.dense)
        if self.pc == "static":
            pc = static
        elif self.pc == "constant":
            pc = torch.ones_like(static[:, :1])
        else:  # without gates, nothing reads it
            pc = self.inputs.pc(embedded) if self.inputs.codes else static[:, :0]
        parts = [static]
        for i, (name, attention) in enumerate(self.attention.items()):
            first, *beside = self.inputs.of_sequence(embedded, name)
            positions = self.positions.get(name)
            parts.append(attention(static, first, batch.sequence_lengths[i], pc, beside, positions))
        return torch.cat(parts, 1), pc


def _attention(config: Ranker, query_dim: int, sequence_dim: int, pc_dim: int) -> nn.Module:
    sizes = (query_dim, sequence_dim, config.heads, config.head_dim)
    if not config.poso_mha:
        return MultiheadAttention(*sizes, finite_padding=True)
    gate = (pc_dim, config.gate_hidden, config.gate_scale)
    return PosoMultiheadAttention(*sizes, *gate, config.mha_folds, config.mha_fold, finite_padding=True)
