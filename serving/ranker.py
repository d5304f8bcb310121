"""The ranker as it is served: what rests on the request alone is computed once for all of its candidates.

Q requests, C candidates, S, F, P widths of embeddings, numbers and codes, D sequence width, L sequence length, T tasks.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coldrank.models.features import FeatureSet
from coldrank.models.ranker import RankerModule
from coldrank.modules import MultiheadAttention, PosoMultiheadAttention
from coldrank.serving.gates import merged
from coldrank.serving.hooked import Routed
from coldrank.serving.order import code_places, places
from coldrank.serving.pack import spread
from coldrank.serving.routed import PlainTowers, RoutedTowers
from coldrank.serving.stage import Looked, Order


class SplitLinear(nn.Module):
    """W x + b, where x is made of a part per request and a part per candidate: W_r r + (W_c c + b). Scriptable."""

    of_request: Tensor
    of_candidate: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, request: list[int], candidate: list[int]) -> None:
        """weight: [out, in]. request, candidate: the places in x of the columns of r and c."""
        super().__init__()
        self.register_buffer("of_request", weight[:, request].contiguous())
        self.register_buffer("of_candidate", weight[:, candidate].contiguous())
        self.register_buffer("bias", torch.zeros(weight.shape[0]) if bias is None else bias.clone())

    def forward(self, request: Tensor, candidate: Tensor) -> Tensor:
        """r: [Q, ..], c: [C, ..] -> [C, out]."""
        once = F.linear(request, self.of_request, self.bias)
        if once.shape[0] == 1:
            return F.linear(candidate, self.of_candidate, once.squeeze(0))
        return spread(once, candidate.shape[0]) + F.linear(candidate, self.of_candidate)


class SequenceReader(nn.Module):
    """A sequence's attention with its query map split. Scriptable."""

    positions: Tensor

    def __init__(self, ranker: RankerModule, name: str, request: list[int], candidate: list[int]) -> None:
        super().__init__()
        self.attention = ranker.attention[name]
        assert isinstance(self.attention, MultiheadAttention | PosoMultiheadAttention)
        self.query = SplitLinear(self.attention.query.weight.detach(), None, request, candidate)
        self.attention.register_module("query", nn.Identity())  # `query` is in its place
        positions = ranker.positions[name].detach() if name in ranker.positions else torch.zeros(1, 1)
        self.register_buffer("positions", positions.clone())

    def forward(self, request: Tensor, candidate: Tensor, sequence: Tensor, lengths: Tensor, pc: Tensor) -> Tensor:
        """Arguments as in `ServedRanker` -> [C, heads * head_dim]."""
        q = self.query(request, candidate)
        # mypy takes a submodule's method for a tensor.
        read: Tensor = self.attention.read(q, sequence + self.positions, lengths, pc)  # type: ignore[operator]
        return read


class ServedRanker(nn.Module):
    """`RankerModule`, with its weights, over what `Stage` gives. Scriptable."""

    def __init__(
        self, ranker: RankerModule, features: FeatureSet, order: list[Order], routed: Routed | None = None
    ) -> None:
        super().__init__()
        ranker = deepcopy(ranker).eval()
        request, candidate = (places(features, o) for o in order)
        width = len(request) + len(candidate)  # of the static inputs of training
        self.mmoe = ranker.mmoe
        self.towers = PlainTowers(ranker.towers) if routed is None else RoutedTowers(ranker.towers, routed)
        self.sequences = nn.ModuleDict({n: SequenceReader(ranker, n, request, candidate) for n in ranker.attention})
        first, gate = ranker.mmoe.experts.first, ranker.mmoe.task_gate
        weight = torch.cat([first.weight, gate.weight]).detach()
        bias = torch.cat([first.bias, torch.zeros(gate.out_features)]).detach()
        of_sequences = list(range(width, weight.shape[1]))
        self.first = SplitLinear(weight, bias, request, candidate + of_sequences)
        self.first_width = first.out_features
        ranker.mmoe.experts.register_module("first", nn.Identity())  # `first` is in their place
        ranker.mmoe.register_module("task_gate", nn.Identity())
        self.pc = ranker.pc
        inner = request + candidate if self.pc == "static" else code_places(features, order)
        # Places of training's columns among those that the stage gives.
        self.code_order = torch.tensor(inner, dtype=torch.int64).argsort()
        # A code that differs between candidates is left to the gates by themselves: merged, they multiply with many
        # zeros.
        once = self.pc == "constant" or (self.pc == "feature" and not order[1].pc)
        self.gates = merged(self) if once else nn.Identity()

    def forward(self, looked: Looked) -> Tensor:
        """Logits [C, T]."""
        request = torch.cat([looked.request.static, looked.request.dense], 1)
        candidate = torch.cat([looked.candidate.static, looked.candidate.dense], 1)
        pc = self.gates(self._code(looked, request, candidate))
        parts = [candidate]
        for name, reader in self.sequences.items():
            parts.append(reader(request, candidate, looked.sequences[name], looked.lengths[name], pc))
        first = self.first(request, torch.cat(parts, 1))
        mixed = self.mmoe.mix(first[:, : self.first_width], first[:, self.first_width :], pc)
        logits: Tensor = self.towers(mixed, pc, looked.counts)
        return logits

    def _code(self, looked: Looked, request: Tensor, candidate: Tensor) -> Tensor:
        """[C, P], or [1, P] where all candidates share it."""
        rows = candidate.shape[0]
        if self.pc == "constant":
            return torch.ones(1, 1)
        if self.pc == "feature":
            request, candidate = looked.request.pc, looked.candidate.pc
        if candidate.shape[1] == 0:
            return spread(request[:, self.code_order], rows)
        return torch.cat([spread(request, rows).expand(rows, -1), candidate], 1)[:, self.code_order]
