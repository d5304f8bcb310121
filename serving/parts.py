"""Parts of the served model that are written by hand, for our models and hooks: they compute what rests on the request
alone once for all of its candidates. What has none is served by tracing (`serving/traced.py`). One of a user's own is
registered likewise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

from torch import nn

from coldrank.data.errors import UserError
from coldrank.models.features import FeatureSet
from coldrank.models.model import ModelModule
from coldrank.models.ranker import RankerModule
from coldrank.models.two_tower import TwoTowerModule
from coldrank.serving.hooked import Made, NewUsers, PriorsOfSides, PriorState, Routed, WarmItems, WarmState
from coldrank.serving.ranker import ServedRanker
from coldrank.serving.stage import Order
from coldrank.serving.two_tower import ServedTwoTower
from coldrank.train.hooks.asmg import ASMGModule
from coldrank.train.hooks.hook import HookModule
from coldrank.train.hooks.incctr import IncCTRModule
from coldrank.train.hooks.metacf import MetaCFModule
from coldrank.train.hooks.mwuf import MwufModule
from coldrank.train.hooks.pam.pam import PamModule
from coldrank.train.hooks.posterior.posterior import PosteriorModule
from coldrank.train.hooks.sml import SMLModule


@dataclass(frozen=True, kw_only=True, slots=True)
class HookPart:
    """made: makes the module that what is looked up passes through. rows, positions: features whose rows, or values by
    position, it reads. routed: the towers' weights by PAM's groups of items, of a trained model."""

    made: Made | None = None
    rows: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    routed: Callable[[nn.Module], Routed] | None = None


@singledispatch
def hook_part(hook: HookModule) -> HookPart | None:
    """The part that a hook leaves in the served model; None: it is traced."""
    return None


@singledispatch
def model_part(model: ModelModule, features: FeatureSet, order: list[Order], routed: Routed | None) -> nn.Module | None:
    """The served twin of a model; None: it is traced."""
    return None


@model_part.register
def _(model: RankerModule, features: FeatureSet, order: list[Order], routed: Routed | None) -> nn.Module | None:
    return ServedRanker(model, features, order, routed)


@model_part.register
def _(model: TwoTowerModule, features: FeatureSet, order: list[Order], routed: Routed | None) -> nn.Module | None:
    return ServedTwoTower(model, features, order, routed)


@hook_part.register
def _(hook: MetaCFModule) -> HookPart | None:
    made = lambda layout: NewUsers(hook.users, hook.config.user, "user_views", layout)
    return HookPart(made=made, positions=(hook.users.codes,))


@hook_part.register
def _(hook: MwufModule) -> HookPart | None:
    state = WarmState(
        nets=hook.nets,
        users=hook.users,
        present=hook.present,
        item=hook.config.item,
        side=hook.side,
        views="item_views",
        max_views=hook.config.max_views,
        shared_row=hook.shared_row,
    )
    return HookPart(made=lambda layout: WarmItems(state, layout), rows=(hook.config.item,))


@hook_part.register
def _(hook: PosteriorModule) -> HookPart | None:
    states = [
        PriorState(
            name=ids.name,
            views=ids.views,
            max_views=ids.max_views,
            side=ids.side,
            weight=ids.weight,
            known=ids.begun | ids.trained | (ids.precision[:1] == 0),
        )
        for ids in hook.in_order.values()
    ]
    return HookPart(made=lambda layout: PriorsOfSides(states, layout), rows=tuple(state.name for state in states))


@hook_part.register(ASMGModule)
@hook_part.register(IncCTRModule)
@hook_part.register(SMLModule)
def _(hook: HookModule) -> HookPart | None:
    return HookPart()  # the model is served as it is


@hook_part.register
def _(hook: PamModule) -> HookPart | None:
    if hook.config.adapt_on_test_labels:
        raise UserError("pam.adapt_on_test_labels=True adapts on labels that serving does not have")
    return HookPart(routed=lambda model: _routed(hook, model))


def _routed(hook: PamModule, model: nn.Module) -> Routed:
    n = hook.config.groups
    towers = {name: p.detach() for name, p in model.named_parameters() if name.startswith("towers.")}
    weights = {name: p.expand(n, *p.shape) for name, p in towers.items()}
    adapted = {name: w.detach() for name, w in hook.served(hook.start(model)).items()}
    return Routed(weights=weights | adapted, cuts=hook.cuts, column="item_views")
