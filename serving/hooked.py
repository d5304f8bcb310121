"""What training's hooks leave in the served model, between the lookup and the ranker; and what tells it so.

Q requests, C candidates, n rows of a side (Q or C), S width of a side's embeddings, D width of an ID embedding, L
sequence length, K users that an item remembers, U width of a user, N groups of PAM.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from coldrank.models.adapted_users import AdaptedUsers
from coldrank.models.embeddings import places as places_in_training
from coldrank.models.features import FeatureSet
from coldrank.modules.mwuf import Mwuf, mean_users
from coldrank.serving.order import Columns, columns_of, places
from coldrank.serving.pack import spread
from coldrank.serving.stage import Asked, Looked, Order, Side, with_sides
from coldrank.serving.tables import Precision, StoredRows


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a served model has its inputs. order: of the columns of a request and of a candidate. candidate: raw columns
    that differ between candidates."""

    features: FeatureSet
    order: list[Order]
    candidate: set[str]
    precision: Precision


Made = Callable[[Layout], nn.Module]


@dataclass(frozen=True, kw_only=True, slots=True)
class Routed:
    """Weights by group: name in the model -> [N, ...], for all parameters of the towers. cuts: of the raw count
    `column`, at which the groups part."""

    weights: dict[str, Tensor]
    cuts: Tensor
    column: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooked:
    """made: what makes the modules that `Looked` passes through, in their order. asked: what they read beside
    embeddings. traced: makes the module for all of it, hooks and model."""

    made: Sequence[Made] = ()
    asked: Asked = field(default_factory=Asked)
    routed: Routed | None = None
    traced: Made | None = None


class NewUsers(nn.Module):
    """MetaCF: users with few events have the ID embedding that is adapted to their history. Scriptable.

    Raises ValueError if the user differs between the candidates of a request, for whom there is one history.
    """

    def __init__(self, users: AdaptedUsers, name: str, views: str, layout: Layout) -> None:
        """name: of the user's id feature; views: the count of the user's events."""
        super().__init__()
        columns = columns_of(layout.features, layout.order[0], name)
        if not columns or views in layout.candidate:
            raise ValueError(f"{views if columns else name}: goes with the history, which is given once per request")
        self.users = deepcopy(users)
        self.user = (columns[0], columns[-1] + 1)
        aligned = layout.features.sequences[users.sequence]
        first = sum(layout.features.dim(f) for f in aligned[: [f.name for f in aligned].index(users.items)])
        self.items = (first, first + len(columns))
        self.sequence, self.codes, self.views = users.sequence, users.codes, views

    def forward(self, looked: Looked) -> Looked:
        request = looked.request
        codes, views = looked.codes[self.codes], looked.counts[self.views]
        first, end = self.user
        of_items = looked.sequences[self.sequence][:, :, self.items[0] : self.items[1]]
        user = self.users(request.static[:, first:end], of_items, codes, views)
        static = torch.cat([request.static[:, :first], user, request.static[:, end:]], 1)
        return with_sides(looked, Side(static, request.dense, request.pc), looked.candidate)


class WarmItems(nn.Module):
    """MWUF: items with few views have the warm ID embedding. Scriptable.

    present: bool [R, K], which places of the R items' first K views a user is remembered at.
    Raises ValueError if an input of the item's is given per candidate and its id is not.
    """

    present: Tensor

    def __init__(self, state: "WarmState", layout: Layout) -> None:
        super().__init__()
        features, order = layout.features, layout.order
        self.name, self.views = state.item, state.views
        self.nets = deepcopy(state.nets)
        columns = [columns_of(features, o, state.item) for o in order]
        self.side = 1 if columns[1] else 0
        self.columns_here = (columns[self.side][0], columns[self.side][-1] + 1)
        columns_in_training = places_in_training(features)
        embedded = [places(features, Order(o.static, [], [])) for o in order]
        side = [
            c for name in state.side for c in range(columns_in_training[name].start, columns_in_training[name].stop)
        ]
        self.features = Columns(embedded, side)
        if self.side == 0 and (self.features.per_candidate or state.views in layout.candidate):
            raise ValueError(f"{state.item}: is warmed up by what differs between candidates; so must this")
        self.users = StoredRows([state.users.flatten(0, 1)], layout.precision)
        self.register_buffer("present", state.present.clone())
        self.max_views, self.shared_row = state.max_views, state.shared_row

    def forward(self, looked: Looked) -> Looked:
        request, candidate = looked.request, looked.candidate
        its = candidate if self.side == 1 else request
        rows = its.static.shape[0]
        views = spread(looked.counts[self.views].unsqueeze(1), rows).squeeze(1)
        first, end = self.columns_here
        ids = its.static[:, first:end]
        side = spread(self.features(request.static, candidate.static), rows)
        warm: Tensor = self.nets(ids, side.expand(rows, -1), self.mean(looked.rows[self.name], views))
        ids = torch.where((views <= self.max_views).unsqueeze(1), warm, ids)
        static = torch.cat([its.static[:, :first], ids, its.static[:, end:]], 1)
        new = Side(static, its.dense, its.pc)
        return with_sides(looked, request, new) if self.side == 1 else with_sides(looked, new, candidate)

    def mean(self, rows: Tensor, views: Tensor) -> Tensor:
        """Mean embedding of the users of the views before: rows, views int64 [n] -> [n, U]."""
        places = torch.arange(self.present.shape[1])
        present = self.present[rows] & (places < views.unsqueeze(1))
        if self.shared_row:
            present = present & (rows > 0).unsqueeze(1)
        index = rows.unsqueeze(1) * places.shape[0] + places
        return mean_users(self.users(index, index), present)


class MeanOfPrior(nn.Module):
    """The posterior of the cold ids of a feature, whose means lie in the table: an id with few views and no event so
    far has the prior's mean. Scriptable.

    known: bool [R], which ids read the table. weight: [S + 1, D].
    Raises ValueError if an input of the prior is given per candidate and the id is not.
    """

    known: Tensor
    weight: Tensor

    def __init__(self, state: "PriorState", layout: Layout) -> None:
        super().__init__()
        features, order = layout.features, layout.order
        self.name, self.views, self.max_views = state.name, state.views, state.max_views
        columns = [columns_of(features, o, state.name) for o in order]
        self.side = 1 if columns[1] else 0
        self.columns_here = (columns[self.side][0], columns[self.side][-1] + 1)
        spans = places_in_training(features)
        embedded = [places(features, Order(o.static, [], [])) for o in order]
        beside = [c for name in state.side for c in range(spans[name].start, spans[name].stop)]
        self.features = Columns(embedded, beside)
        given_apart = bool(beside) and self.features.per_candidate
        if self.side == 0 and (given_apart or state.views in layout.candidate):
            raise ValueError(f"{state.name}: its prior is of what differs between candidates; so must this")
        self.register_buffer("known", state.known.clone())
        self.register_buffer("weight", state.weight.clone())

    def forward(self, looked: Looked) -> Looked:
        request, candidate = looked.request, looked.candidate
        its = candidate if self.side == 1 else request
        rows = its.static.shape[0]
        views = spread(looked.counts[self.views].unsqueeze(1), rows).squeeze(1)
        first, end = self.columns_here
        beside = spread(self.features(request.static, candidate.static), rows).expand(rows, -1)
        means = beside @ self.weight[:-1] + self.weight[-1]
        new = (views <= self.max_views) & ~self.known[looked.rows[self.name]]
        ids = torch.where(new.unsqueeze(1), means, its.static[:, first:end])
        static = torch.cat([its.static[:, :first], ids, its.static[:, end:]], 1)
        side = Side(static, its.dense, its.pc)
        return with_sides(looked, request, side) if self.side == 1 else with_sides(looked, side, candidate)


class PriorsOfSides(nn.Module):
    """The posterior of the cold ids of several features. Scriptable."""

    def __init__(self, states: "Sequence[PriorState]", layout: Layout) -> None:
        super().__init__()
        self.parts = nn.ModuleList(MeanOfPrior(state, layout) for state in states)

    def forward(self, looked: Looked) -> Looked:
        for part in self.parts:
            looked = part(looked)
        return looked


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorState:
    """The prior of the ids of one feature. name: the feature; views: the count of its views; side: the features that
    the prior's mean is linear in, by `weight` [S + 1, D]. known: bool [R], ids that have none to read."""

    name: str
    views: str
    max_views: int
    side: list[str]
    weight: Tensor
    known: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmState:
    """MWUF's networks, and the users that the items met: users float32 [R, K, U], present bool [R, K]. item: the id
    feature; side: the features that scale it; views: the count of the item's views. shared_row: row 0 is of all unknown
    items."""

    nets: Mwuf
    users: Tensor
    present: Tensor
    item: str
    side: list[str]
    views: str
    max_views: int
    shared_row: bool
