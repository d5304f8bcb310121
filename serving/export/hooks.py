"""What a task's hooks leave in the served model."""

from torch import nn

from coldrank.data.errors import UserError
from coldrank.serving.hooked import Hooked, Made, NewUsers, Routed, WarmItems, WarmState
from coldrank.serving.stage import Asked
from coldrank.train.config import RunConfig
from coldrank.train.hooks.metacf import MetaCFModule
from coldrank.train.hooks.mwuf import MwufModule
from coldrank.train.hooks.pam.pam import PamModule
from coldrank.train.task import RankingTask

# The counts of a sample that hooks read: `Batch.keys`.
USER_VIEWS, ITEM_VIEWS = "user_views", "item_views"


def counts(config: RunConfig) -> tuple[str, ...]:
    """The raw counts that a run's hooks read in serving."""
    return tuple(dict.fromkeys(name for hook in config.hooks for name in hook.reads))


def served_hooks(config: RunConfig, task: RankingTask) -> Hooked:
    """The serving parts of the hooks, in their order. Raises UserError for one that cannot be served."""
    made: list[Made] = []
    rows: list[str] = []
    codes: list[str] = []
    routed = None
    for hook in task.in_order:
        if isinstance(hook, MetaCFModule):
            made.append(_new_users(hook, config))
            codes.append(hook.users.codes)
        elif isinstance(hook, MwufModule):
            made.append(_warm_items(hook, config))
            rows.append(hook.config.item)
        elif isinstance(hook, PamModule):
            routed = _routed(hook, config, task.ranker)
        else:
            raise UserError(f"{config.name}: hooks={config.hook_names}: {type(hook).__name__} has no serving part")
    return Hooked(made=made, asked=Asked(rows=tuple(rows), codes=tuple(codes), counts=counts(config)), routed=routed)


def _new_users(hook: MetaCFModule, config: RunConfig) -> Made:
    return lambda layout: NewUsers(hook.users, hook.config.user, USER_VIEWS, layout)


def _warm_items(hook: MwufModule, config: RunConfig) -> Made:
    state = WarmState(
        nets=hook.nets,
        users=hook.users,
        present=hook.present,
        item=hook.config.item,
        side=hook.get_buffer("side_columns").tolist(),
        views=ITEM_VIEWS,
        max_views=hook.config.max_views,
        shared_row=hook.shared_row,
    )
    return lambda layout: WarmItems(state, layout)


def _routed(hook: PamModule, config: RunConfig, model: nn.Module) -> Routed:
    if hook.config.adapt_on_test_labels:
        raise UserError(f"{config.name}: pam.adapt_on_test_labels=True adapts on labels that serving does not have")
    n = hook.config.tasks
    towers = {name: p.detach() for name, p in model.named_parameters() if name.startswith("towers.")}
    weights = {name: p.expand(n, *p.shape) for name, p in towers.items()}
    own = {name: w.detach() for name, w in hook.served(hook.start(model)).items()}
    return Routed(weights=weights | own, cuts=hook.cuts, column=ITEM_VIEWS)
