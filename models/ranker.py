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

    pc: what feeds the gates: the feature of role `pc`, or a constant (the control that has POSO's parameters only).
    gate_scale: C of Eq. 6. mha_fold: the row of POSO's Table 7, `v` is the paper's choice (Eq. 14).
    """

    heads: int = 4
    head_dim: int = 16
    experts: int = 4
    expert_hidden: tuple[int, ...] = (256, 128)
    tower_hidden: tuple[int, ...] = (64,)
    dropout: float = 0.0
    poso_mha: bool = False
    poso_mmoe: bool = False
    poso_mlp: bool = False
    pc: Literal["feature", "constant"] = "feature"
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
        self.constant_pc = config.pc == "constant"
        pc_dim = 1 if self.constant_pc else stage.pc_dim
        static_dim = stage.static_dim + dense_dim
        gate = {"pc_dim": pc_dim, "gate_hidden": config.gate_hidden, "scale": config.gate_scale}
        self.attention = nn.ModuleDict(
            {name: _attention(config, static_dim, dim, gate) for name, dim in stage.sequence_dims.items()}
        )
        width = static_dim + len(self.attention) * config.heads * config.head_dim
        shape = {"experts": config.experts, "hidden": config.expert_hidden, "tasks": tasks, "dropout": config.dropout}
        self.mmoe = PosoMMoE(width, **shape, **gate) if config.poso_mmoe else MMoE(width, **shape)
        towers = {"hidden": config.tower_hidden, "tasks": tasks, "dropout": config.dropout}
        expert_dim = config.expert_hidden[-1]
        self.towers = PosoTowers(expert_dim, **towers, **gate) if config.poso_mlp else Towers(expert_dim, **towers)

    def forward(self, embedded: Embedded, dense: Tensor, sequence_lengths: Tensor) -> Tensor:
        """dense: [B, F], sequence_lengths: int64 [S, B] in the order of the sequences -> logits [B, T]."""
        static = torch.cat([embedded.static, dense], 1)
        pc = torch.ones_like(static[:, :1]) if self.constant_pc else embedded.pc
        parts = [static]
        for i, (name, attention) in enumerate(self.attention.items()):
            parts.append(attention(static, embedded.sequences[name], sequence_lengths[i], pc))
        return self.towers(self.mmoe(torch.cat(parts, 1), pc), pc)


def _attention(config: RankerConfig, query_dim: int, sequence_dim: int, gate: dict[str, float]) -> nn.Module:
    sizes = {"query_dim": query_dim, "sequence_dim": sequence_dim, "heads": config.heads, "head_dim": config.head_dim}
    if not config.poso_mha:
        return MultiheadAttention(**sizes)
    return PosoMultiheadAttention(**sizes, folds=config.mha_folds, fold=config.mha_fold, **gate)
