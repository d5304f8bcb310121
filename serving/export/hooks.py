"""What a task's hooks leave in the served model."""

from functools import partial

from coldrank.data.errors import UserError
from coldrank.models.features import FeatureSet
from coldrank.serving.hooked import Hooked
from coldrank.serving.parts import HookPart, hook_part, model_part
from coldrank.serving.stage import Asked
from coldrank.serving.traced import Traced, asked_by
from coldrank.train.config import RunConfig
from coldrank.train.task import RankingTask


def counts(config: RunConfig) -> tuple[str, ...]:
    """The raw counts that a run's hooks read in serving."""
    return tuple(dict.fromkeys(name for hook in config.hooks for name in hook.reads))


def served_hooks(config: RunConfig, task: RankingTask, features: FeatureSet, *, traced: bool = False) -> Hooked:
    """How the hooks and the model are served: by parts of their own where all have one, else, or if `traced`, traced
    together. Raises UserError for a hook that cannot be served."""
    hooks = task.in_order
    try:
        parts = [hook_part(hook) for hook in hooks]
    except UserError as error:
        raise UserError(f"{config.name}: {error}") from None
    written = [part for part in parts if part is not None]
    if traced or len(written) < len(hooks) or model_part.dispatch(type(task.ranker)) is model_part.dispatch(object):
        asked = asked_by(task.ranker, task.heads, hooks, features, counts(config))
        return Hooked(asked=asked, traced=partial(Traced, task.ranker, task.heads, hooks, asked))
    return _by_parts(config, task, written)


def _by_parts(config: RunConfig, task: RankingTask, parts: list[HookPart]) -> Hooked:
    rows = tuple(name for part in parts for name in part.rows)
    positions = tuple(name for part in parts for name in part.positions)
    routed = [part.routed(task.ranker) for part in parts if part.routed is not None]
    return Hooked(
        made=[part.made for part in parts if part.made is not None],
        asked=Asked(rows=rows, codes=positions, counts=counts(config)),
        routed=routed[0] if routed else None,
    )
