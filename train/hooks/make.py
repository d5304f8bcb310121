"""Hooks by name."""

from collections.abc import Callable

from coldrank.data.errors import UserError
from coldrank.models.features import FeatureSet
from coldrank.train.config import RunConfig
from coldrank.train.hooks.hook import Hook
from coldrank.train.hooks.metacf import MetaCFHook
from coldrank.train.hooks.mwuf import MwufHook
from coldrank.train.hooks.pam import Pam

# Name -> how the hook is made from a checked config.
HOOKS: dict[str, Callable[[RunConfig, FeatureSet], Hook]] = {"metacf": MetaCFHook, "mwuf": MwufHook, "pam": Pam}


def make_hooks(config: RunConfig, features: FeatureSet) -> dict[str, Hook]:
    """The hooks that a config has on, in their order. Raises UserError for one that the rest of the config leaves no room for."""
    hooks = {name: HOOKS[name](config, features) for name in config.hooks}
    for name, hook in hooks.items():
        if config.train.accumulate > 1 and not hook.slices:
            raise UserError(
                f"{config.name}: train.accumulate={config.train.accumulate}: hook {name!r} compares the rows of a batch; "
                "must be 1"
            )
    return hooks
