"""The two-tower model as it is served: the user's vector is made once for all candidates.

Q requests, C candidates, n rows (Q or C), N sets of weights, D width.
"""

import torch
from torch import Tensor, nn

from coldrank.models.embeddings import places as places_in_training
from coldrank.models.features import FeatureSet
from coldrank.models.two_tower import Sides, Tower, TwoTowerModule
from coldrank.modules.contrast import unit
from coldrank.modules.linear import GroupedLinear
from coldrank.serving.hooked import Routed
from coldrank.serving.order import Columns, places
from coldrank.serving.pack import spread
from coldrank.serving.routed import Router
from coldrank.serving.stage import Looked, Order


class ServedTower(nn.Module):
    """A tower of the two-tower model by N sets of weights: [n, in] -> [n, N, D]. Scriptable."""

    def __init__(self, tower: Tower, weights: dict[str, Tensor], columns: Columns) -> None:
        super().__init__()
        self.columns = columns
        layers = []
        for i in range(len(tower.layers)):
            weight, bias = weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"]
            layer = GroupedLinear(weight.shape[0], weight.shape[2], weight.shape[1])
            layer.load_state_dict({"weight": weight.mT, "bias": bias.unsqueeze(1)})
            layers.append(layer)
        self.groups = layers[0].weight.shape[0]
        self.hidden, self.last = nn.ModuleList(layers[:-1]), layers[-1]

    def forward(self, request: Tensor, candidate: Tensor) -> Tensor:
        x: Tensor = self.columns(request, candidate)
        x = x.unsqueeze(1).expand(-1, self.groups, -1)
        for layer in self.hidden:
            x = torch.relu(layer(x))
        vectors: Tensor = unit(self.last(x))
        return vectors


class ServedTwoTower(nn.Module):
    """Inner products of the user's vector, which is made once, and the candidates'. Scriptable."""

    def __init__(self, model: TwoTowerModule, features: FeatureSet, order: list[Order], routed: Routed | None) -> None:
        super().__init__()
        plain = {name: p.detach().unsqueeze(0) for name, p in model.named_parameters()}
        weights = plain if routed is None else routed.weights
        of_sides = [places(features, o) for o in order]
        columns_of = places_in_training(features)
        fixed = sum(features.dim(f) for o in order for f in o.static)
        towers = {}
        for side in Sides._fields:
            static = [c for name in model.features[side] for c in range(columns_of[name].start, columns_of[name].stop)]
            columns = Columns(of_sides, static + (model.get_buffer(f"{side}_dense") + fixed).tolist())
            prefix = f"towers.{side}."
            of_side = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
            tower = model.towers[side]
            assert isinstance(tower, Tower)
            towers[side] = ServedTower(tower, of_side, columns)
        self.user, self.item = towers["user"], towers["item"]
        self.router = Router(routed) if routed is not None else None

    def forward(self, looked: Looked) -> Tensor:
        """[C, 1], each in -1..1."""
        request = torch.cat([looked.request.static, looked.request.dense], 1)
        candidate = torch.cat([looked.candidate.static, looked.candidate.dense], 1)
        rows = candidate.shape[0]
        user, item = self.user(request, candidate), self.item(request, candidate)
        scores = (spread(user, rows) * spread(item, rows)).sum(2, keepdim=True).expand(rows, -1, -1)
        if self.router is not None:
            routed: Tensor = self.router(scores, looked.counts)
            return routed
        return scores[:, 0]
