"""The ranker (POSO, section 3 and Fig. 3): one MHA per sequence, concatenation, MMoE over tasks, towers, one logit per task.

B batch, L sequence length, D width, T tasks.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from coldrank.models.embeddings import Embedded, EmbeddingStage
from coldrank.modules import (
    MMoE,
    MultiheadAttention,
    PosoMMoE,
    PosoMultiheadAttention,
    PosoTowers,
    Towers,
)


@dataclass(kw_only=True, slots=True)
class RankerConfig:
    """Sizes, and which parts are personalized.

    kind: the ranker, or a model of models/backbones.py, which has `tower_hidden`, `crosses` (layers, DCN) and dropout only.
    pc: what feeds the gates: the features of role `pc`; `static`, every input outside the sequences ("all features" of POSO's
    Table 6); or a constant (the control that has POSO's parameters only).
    gate_scale: C of Eq. 6. mha_fold: the row of POSO's Table 7, `v` is the paper's choice (Eq. 14).
    positions: adds a learned vector per position to a sequence, so that attention can tell recent from old.
    """

    kind: Literal["ranker", "wide_deep", "deepfm", "dcn"] = "ranker"
    heads: int = 4
    head_dim: int = 16
    positions: bool = False
    experts: int = 4
    expert_hidden: tuple[int, ...] = (256, 128)
    tower_hidden: tuple[int, ...] = (64,)
    crosses: int = 3
    dropout: float = 0.0
    poso_mha: bool = False
    poso_mmoe: bool = False
    poso_mlp: bool = False
    pc: Literal["feature", "static", "constant"] = "feature"
    gate_hidden: int = 32
    gate_scale: float = 2.0
    mha_folds: int = 4
    mha_fold: Literal["qkv", "kv", "v", "none"] = "v"

    @property
    def personalized(self) -> bool:
        """Whether any part takes the personalization code."""
        return self.poso_mha or self.poso_mmoe or self.poso_mlp


class Ranker(nn.Module):
    """Embedded features -> logits [B, T]."""

    def __init__(self, config: RankerConfig, stage: EmbeddingStage, dense_dim: int, tasks: int) -> None:
        super().__init__()
        if config.personalized and config.pc == "feature" and not stage.pc_dim:
            raise ValueError("model.pc='feature', but no feature has role 'pc'; declare one or set model.pc='constant'")
        self.pc = config.pc
        static_dim = stage.static_dim + dense_dim
        pc_dim = {"feature": stage.pc_dim, "static": static_dim, "constant": 1}[config.pc]
        self.attention = nn.ModuleDict(
            {name: _attention(config, static_dim, dim, pc_dim) for name, dim in stage.sequence_dims.items()}
        )
        lengths = {name: stage.sequence_lengths[name] for name in self.attention if config.positions}
        self.positions = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(n, stage.sequence_dims[name])) for name, n in lengths.items()}
        )
        width = static_dim + len(self.attention) * config.heads * config.head_dim
        mmoe = (width, config.experts, config.expert_hidden, tasks)
        towers = (config.expert_hidden[-1], config.tower_hidden, tasks)
        gate, drop = (pc_dim, config.gate_hidden, config.gate_scale), config.dropout
        self.mmoe = PosoMMoE(*mmoe, *gate, drop) if config.poso_mmoe else MMoE(*mmoe, drop)
        self.towers = PosoTowers(*towers, *gate, drop) if config.poso_mlp else Towers(*towers, drop)

    def forward(self, embedded: Embedded, dense: Tensor, sequence_lengths: Tensor) -> Tensor:
        """dense: [B, F], sequence_lengths: int64 [S, B] in the order of the sequences -> logits [B, T]."""
        logits: Tensor = self.towers(*self.represent(embedded, dense, sequence_lengths))
        return logits

    def represent(self, embedded: Embedded, dense: Tensor, sequence_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the towers read: representations of the tasks [B, T, D], personalization code."""
        static = torch.cat([embedded.static, dense], 1)
        pc = embedded.pc
        if self.pc == "static":
            pc = static
        elif self.pc == "constant":
            pc = torch.ones_like(static[:, :1])
        parts = [static]
        for i, (name, attention) in enumerate(self.attention.items()):
            sequence = embedded.sequences[name]
            if name in self.positions:
                sequence = sequence + self.positions[name]
            parts.append(attention(static, sequence, sequence_lengths[i], pc))
        return self.mmoe(torch.cat(parts, 1), pc), pc


def _attention(config: RankerConfig, query_dim: int, sequence_dim: int, pc_dim: int) -> nn.Module:
    sizes = (query_dim, sequence_dim, config.heads, config.head_dim)
    if not config.poso_mha:
        return MultiheadAttention(*sizes)
    gate = (pc_dim, config.gate_hidden, config.gate_scale)
    return PosoMultiheadAttention(*sizes, *gate, config.mha_folds, config.mha_fold)
