"""The settings of the posterior of cold ids (docs/posterior.md)."""

from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from coldrank.data.errors import meant
from coldrank.models.embeddings import fixed_features
from coldrank.models.features import Feature, FeatureSet
from coldrank.train.hooks.hook import Hook, Settings
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.hooks.mwuf import Mwuf
from coldrank.train.hooks.pam import Pam
from coldrank.train.hooks.posterior.ids import ColdIds
from coldrank.train.hooks.posterior.posterior import PosteriorModule

# The role of an id -> the count of its views.
VIEWS = {"item": "item_views", "user": "user_views"}


@dataclass(kw_only=True, slots=True)
class Posterior(Hook):
    """While an id has few views, its ID embedding is the posterior mean of a Gaussian prior and its events so far, in
    closed form (docs/posterior.md)."""

    item: str = "item_id"
    """The feature of the item's id; '': items are left alone."""
    user: str = ""
    """The feature of the user's id; '': users are left alone."""
    item_max_views: NonNegativeInt = 50
    """Views of an item that is cold."""
    user_max_views: NonNegativeInt = 10
    """Views of a user who is cold."""
    tasks: tuple[str, ...] = ()
    """The tasks whose labels are evidence; none named: all. Each takes a backward pass over the cold rows."""
    prior: Literal["features", "mean"] = "features"
    """features: the prior's mean is linear in the embeddings of the other ids of the same role; where there are none,
    and with `mean`, it is that of the trained embeddings."""
    strength: PositiveFloat = 1.0
    """What the prior's precision is multiplied by."""
    refresh: PositiveInt = 100
    """Steps between two fits of the prior."""
    memory: PositiveInt = 1000
    """Steps over which the prior forgets: what was seen so long ago counts 1/e."""

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(views for role, views in VIEWS.items() if getattr(self, role))

    def build(self, config: Settings, features: FeatureSet) -> PosteriorModule:
        unknown = [task for task in self.tasks if task not in config.tasks]
        if unknown:
            raise ValueError(f"tasks: {unknown[0]!r} is no task; {meant(unknown[0], list(config.tasks))}")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks={self.tasks}: names one twice")
        if not (self.item or self.user):
            raise ValueError("item='' and user='': name the feature of an id")
        fixed = {f.name: f for f in fixed_features(features)}
        ids = {role: self._ids(role, fixed, features) for role in VIEWS if getattr(self, role)}
        if len({of.table for of in ids.values()}) < len(ids):
            raise ValueError(f"user={self.user!r}: reads the table of item={self.item!r}; must have its own")
        names = list(config.tasks)
        return PosteriorModule(ids, [names.index(task) for task in self.tasks or names], self.refresh)

    def _ids(self, role: str, fixed: dict[str, Feature], features: FeatureSet) -> ColdIds:
        name, max_views = getattr(self, role), getattr(self, f"{role}_max_views")
        if name not in fixed:
            raise ValueError(f"{role}={name!r} is no embedded feature outside sequences; {meant(name, fixed)}")
        id_ = fixed[name]
        table = features.table(id_.table_name)
        if id_.kind != "id" or id_.many or table.reads != 1:
            raise ValueError(f"{role}={name!r}: must be one id with one row")
        if id_.role != role:
            raise ValueError(f"{role}={name!r}: has role {id_.role!r}; must be {role!r}")
        beside = [f for f in fixed.values() if f.role == role and f.kind == "id" and f.name != name]
        widths = {f.name: features.dim(f) for f in beside if self.prior == "features"}
        return ColdIds(name, VIEWS[role], max_views, widths, table, self.strength, self.memory)

    def problem(self, config: Settings) -> str:
        if config.model.compares_rows:
            return f"posterior: model={config.model.kind()!r} compares rows; must score each by itself"
        for hook in config.hooks:
            if isinstance(hook, Pam):
                return "posterior beside pam: its weights differ from batch to batch, and evidence would count for them"
            if isinstance(hook, Mwuf) and hook.mode == "warm_up":
                return "posterior beside mwuf.mode=warm_up: the model is to stay as it is"
            if isinstance(hook, Mwuf) and hook.item == self.item:
                return f"posterior.item={self.item!r}: is warmed up by mwuf; leave it to one of them"
            if isinstance(hook, MetaCF) and hook.user == self.user:
                return f"posterior.user={self.user!r}: is adapted by metacf; leave it to one of them"
        return ""

    def idle(self, config: Settings) -> list[tuple[bool, tuple[str, ...], str]]:
        return [(not getattr(self, role), (f"{role}_max_views",), f"with posterior.{role}=''") for role in VIEWS]

    def written(self, config: Settings) -> frozenset[str]:
        return frozenset(f.table_name for f in config.features if f.name in (self.item, self.user) and f.has_table)
