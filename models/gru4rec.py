"""GRU4Rec (Hidasi et al., ICLR 2016) as a ranker, on our embedding stage.

B batch, L sequence length, D width, H width of the state, T tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from coldrank.models.batch import SampleView
from coldrank.models.component import Dropout, Widths
from coldrank.models.embeddings import Embedded, Inputs
from coldrank.models.features import FeatureSet
from coldrank.models.heads.head import Head
from coldrank.models.model import Model, ModelModule
from coldrank.modules import MLP
from coldrank.modules.attended import without_padding


@dataclass(kw_only=True, slots=True)
class GRU4Rec(Model):
    """A GRU over each sequence; its last state is an input of an MLP beside the others."""

    state_dim: PositiveInt = 32
    """Width of the GRU's state."""
    tower_hidden: Widths = (64,)
    """Widths of the MLP's layers."""
    dropout: Dropout = 0.0
    """Share of the MLP's units that a training step leaves out."""

    def build(self, features: FeatureSet, tasks: int) -> "GRU4RecModule":
        return GRU4RecModule(self, features, tasks)

    def problem(self, features: FeatureSet, tasks: Mapping[str, Head], *, sequences: bool = False) -> str:
        return "" if features.sequences else "model='gru4rec' reads a history; no feature has role 'sequence'"


class RecurrentState(nn.Module):
    """The state of a gated recurrent unit after a sequence, whose latest event comes first and is read last:

        h_t = (1 - z_t) h_{t-1} + z_t ĥ_t
        z_t = sigmoid(W_z x_t + U_z h_{t-1})
        ĥ_t = tanh(W x_t + U (r_t * h_{t-1}))
        r_t = sigmoid(W_r x_t + U_r h_{t-1})

    with a bias beside each W, and h_0 = 0. torch.nn.GRU has another ĥ_t, of r_t * (U h_{t-1}).
    """

    def __init__(self, in_dim: int, state_dim: int) -> None:
        super().__init__()
        self.state_dim = state_dim
        self.of_event = nn.Linear(in_dim, 3 * state_dim)
        self.gates = nn.Linear(state_dim, 2 * state_dim, bias=False)
        self.candidate = nn.Linear(state_dim, state_dim, bias=False)

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """sequence: float [B, L, D]; lengths: int64 [B] -> [B, H]; zeros where a sequence is empty."""
        events = self.of_event(without_padding(sequence, lengths))
        state = sequence.new_zeros(sequence.shape[0], self.state_dim)
        for position, event in reversed(list(enumerate(events.unbind(1)))):
            of_gates, of_candidate = event.split([2 * self.state_dim, self.state_dim], 1)
            update, reset = torch.sigmoid(of_gates + self.gates(state)).chunk(2, 1)
            candidate = torch.tanh(of_candidate + self.candidate(reset * state))
            later = (1 - update) * state + update * candidate
            state = torch.where((position < lengths).unsqueeze(1), later, state)
        return state


class GRU4RecModule(ModelModule):
    """Every input outside sequences and the state of each sequence, side by side, through an MLP.

    The paper scores every item by the state, and trains on what comes next of it against sampled others; here the
    candidate is an input, and the labels are those of the tasks.
    """

    def __init__(self, config: GRU4Rec, features: FeatureSet, tasks: int) -> None:
        super().__init__()
        self.inputs = Inputs(features)
        dims = self.inputs.sequence_dims
        self.states = nn.ModuleDict({name: RecurrentState(dim, config.state_dim) for name, dim in dims.items()})
        width = self.inputs.static_dim + len(dims) * config.state_dim
        self.deep = MLP(width, config.tower_hidden, config.dropout)
        self.out = nn.Linear(config.tower_hidden[-1], tasks)

    def forward(self, embedded: Embedded, batch: SampleView) -> Tensor:
        """Logits [B, T]."""
        parts = [self.inputs.static(embedded, batch.dense)]
        for (name, state), lengths in zip(self.states.items(), batch.sequence_lengths, strict=True):
            parts.append(state(self.inputs.sequence(embedded, name), lengths))
        logits: Tensor = self.out(self.deep(torch.cat(parts, 1)))
        return logits
