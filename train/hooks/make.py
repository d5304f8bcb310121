"""The hooks of a run."""

from coldrank.data.errors import UserError
from coldrank.models.features import FeatureSet
from coldrank.train.hooks.hook import HookModule, Settings


def make_hooks(config: Settings, features: FeatureSet) -> dict[str, HookModule]:
    """The hooks that a config has on, by name, in their order. Raises UserError for one that the rest of the config
    leaves no room for."""
    modules: dict[str, HookModule] = {}
    for hook in config.hooks:
        name = hook.short_name()
        try:
            modules[name] = hook.build(config, features)
        except ValueError as error:
            raise UserError(f"{config.name}: {name}: {error}") from None
        if config.train.accumulate > 1 and not modules[name].micro_batches:
            raise UserError(
                f"{config.name}: train.accumulate={config.train.accumulate}: hook {name!r} compares the rows of a "
                "batch; must be 1"
            )
    return modules
