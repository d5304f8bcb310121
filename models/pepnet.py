"""PEPNet (Chang et al., KDD 2023) on our ranker: POSO's closest rival. Its gates read what they gate, and who is asked.

B batch, D width, P width of the prior, T tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from coldrank.models.batch import SampleView
from coldrank.models.component import Dropout, Widths
from coldrank.models.embeddings import Embedded, fixed_features
from coldrank.models.features import FeatureSet
from coldrank.models.heads.head import Head
from coldrank.models.model import Model, ModelModule
from coldrank.models.ranker import Ranker, RankerModule
from coldrank.modules import PersonalizedGate, PosoTowers
from coldrank.modules.gate import separate_draws, spread_gates


@dataclass(kw_only=True, slots=True)
class PEPNet(Model):
    """The plain ranker's sizes, and which gates it has."""

    heads: PositiveInt = 4
    """Heads of the attention over each sequence."""
    head_dim: PositiveInt = 16
    """Width of a head."""
    positions: bool = False
    """Adds a learned vector per position to a sequence."""
    experts: PositiveInt = 4
    """Experts of the MMoE."""
    expert_hidden: Widths = (256, 128)
    """Widths of an expert's layers."""
    tower_hidden: Widths = (64,)
    """Widths of the hidden layers of a task's tower."""
    dropout: Dropout = 0.0
    """Share of the units of experts and towers that a training step leaves out."""
    epnet: bool = True
    """Gates all inputs by the domain, here the features of role `pc` (Eq. 4)."""
    ppnet: bool = True
    """Gates the units of the towers by the ids of `prior` (Eq. 6 and 7)."""
    prior: tuple[str, ...] = ("user_id", "item_id")
    """Features whose embeddings say who is asked about what, of PPNet."""
    gate_hidden: PositiveInt = 32
    """Width of a gate's hidden layer."""
    gate_scale: PositiveFloat = 2.0
    """gamma of Eq. 2."""
    gate_init: NonNegativeFloat = 0.0
    """Deviation of the first weights of the gates' last layers; at 0 every gate starts at `gate_scale / 2`."""

    @property
    def personalized(self) -> bool:
        return self.epnet or self.ppnet

    @property
    def reads_pc(self) -> bool:
        return self.epnet

    def build(self, features: FeatureSet, tasks: int) -> "PEPNetModule":
        return PEPNetModule(self, features, tasks)

    def problem(self, features: FeatureSet, tasks: Mapping[str, Head], *, sequences: bool = False) -> str:
        if self.epnet and not any(f.role == "pc" for f in features.features):
            return "model.epnet: no feature has role 'pc'; declare one, or model.epnet=false"
        fixed = [f.name for f in fixed_features(features)]
        if unknown := [name for name in self.prior if self.ppnet and name not in fixed]:
            return f"model.prior: {unknown[0]!r} is no embedded feature outside sequences"
        if self.ppnet and not self.prior:
            return "model.prior is empty; name features, or model.ppnet=false"
        if self.ppnet and not self.tower_hidden:
            return "model.ppnet: the towers have no hidden layer to gate"
        return ""

    def idle(self, features: FeatureSet) -> list[tuple[bool, tuple[str, ...], str]]:
        history = ("heads", "head_dim", "positions")
        return [
            (not self.ppnet, ("prior",), "without model.ppnet"),
            (not self.personalized, ("gate_hidden", "gate_scale", "gate_init"), "without model.epnet or model.ppnet"),
            (not features.sequences, history, "without a sequence among the features"),
        ]

    def plain(self) -> Ranker:
        """The ranker without gates."""
        return Ranker(
            heads=self.heads,
            head_dim=self.head_dim,
            positions=self.positions,
            experts=self.experts,
            expert_hidden=self.expert_hidden,
            tower_hidden=self.tower_hidden,
            dropout=self.dropout,
        )


class PEPNetModule(ModelModule):
    """EPNet: x' = gate(domain, sg(x)) * x. PPNet: each hidden layer of a tower times gate(prior, sg(x')). sg stops
    gradients; a gate is 2 * sigmoid(W relu(V . + c) + b).

    A gate's last layer starts at zero, as POSO's does, so that a fresh model is the plain ranker, bit for bit.
    """

    def __init__(self, config: PEPNet, features: FeatureSet, tasks: int) -> None:
        super().__init__()
        self.prior = config.prior if config.ppnet else ()
        self.ranker = RankerModule(config.plain(), features, tasks)
        x_dim = self.ranker.width
        prior_dim = sum(features.dim(f) for f in features.features if f.name in self.prior)
        size = (config.gate_hidden, config.gate_scale)
        with separate_draws():
            pc_dim = self.ranker.inputs.pc_dim
            self.epnet = PersonalizedGate(pc_dim + x_dim, x_dim, *size) if config.epnet else None
            if config.ppnet:
                sizes = (config.expert_hidden[-1], config.tower_hidden, tasks, prior_dim + x_dim)
                gated = PosoTowers(*sizes, *size, config.dropout)
                gated.load_state_dict(self.ranker.towers.state_dict(), strict=False)  # the plain first weights
                self.ranker.towers = gated
        spread_gates(self, config.gate_init)

    def forward(self, embedded: Embedded, batch: SampleView) -> Tensor:
        """Logits [B, T]."""
        x, pc = self.ranker.joined(embedded, batch)
        if self.epnet is not None:
            x = self.epnet(torch.cat([pc, x.detach()], 1)) * x
        prior = torch.cat([*(embedded[name] for name in self.prior), x.detach()], 1)
        logits: Tensor = self.ranker.towers(self.ranker.mmoe(x), prior)
        return logits
