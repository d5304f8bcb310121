"""Small configs for tests: a whole base of its own features, and `tiny`, which shrinks any arm.

Sizes, weights and lengths that the program tells apart differ here, so that one in the place of another fails a test.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from samples import TASKS

from coldrank.configs.base import AVC_EDGES, counts, history, personalization_code
from coldrank.models.features import Feature, Table
from coldrank.models.features import Mapping as IdMapping
from coldrank.models.heads import Binary
from coldrank.models.ranker import Ranker
from coldrank.train.config import RunConfig
from coldrank.train.hooks.asmg import ASMG
from coldrank.train.hooks.hook import Hook
from coldrank.train.hooks.metacf import MetaCF
from coldrank.train.hooks.pam import Pam
from coldrank.train.hooks.posterior import Posterior
from coldrank.train.hooks.sml import SML

Fields = Mapping[str, object]
NONE: Fields = MappingProxyType({})


def tiny(config: RunConfig) -> RunConfig:
    """The same arm with small widths and batches. A two-tower arm has no ranker to shrink."""
    model = config.model
    if hasattr(model, "tower_hidden"):
        model = replace(model, tower_hidden=_narrow(model.tower_hidden))
    if isinstance(model, Ranker):
        small = {"heads": 2, "head_dim": 4, "experts": 2, "gate_hidden": 4}
        model = replace(model, expert_hidden=_narrow(model.expert_hidden), **small)
    data = replace(config.data, batch_size=64, eval_batch_size=48, shuffle_rows=256, prefetch=2)
    train = replace(config.train, log_every=5, threads=1)
    return replace(config, model=model, data=data, train=train, hooks=tuple(_felt(hook) for hook in config.hooks))


def _felt(hook: Hook) -> Hook:
    """The hook with limits that part some hundred events, and inner steps that are felt in some batches of them, where
    an arm leaves both as they are by default."""
    if isinstance(hook, Pam) and (hook.cuts, hook.rate) == (Pam().cuts, Pam().rate):
        return replace(hook, cuts=(0, 2, 4, 6, 8), rate=0.05 if hook.steps else hook.rate)
    if isinstance(hook, MetaCF) and hook.rate == MetaCF().rate:
        return replace(hook, rate=2.0)
    if isinstance(hook, Posterior) and hook.refresh == Posterior().refresh:
        return replace(hook, refresh=1, item_max_views=1, prior="mean", strength=1e-5)
    if isinstance(hook, SML):
        return replace(hook, after=1)
    if isinstance(hook, ASMG):
        return replace(hook, length=1, after=2)
    return hook


def _narrow(widths: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(2, w // 16) for w in widths)


def sample_features(length: int = 6) -> tuple[Feature, ...]:
    """Features over the columns of `samples.write_samples`."""
    return (
        Feature(name="user_id", role="user", kind="id", table="user"),
        Feature(name="item_id", role="item", kind="id", table="item"),
        Feature(name="item_tags", role="item", kind="id", table="tag", many=True),
        *counts(["user_views", "item_views"], dim=16),
        Feature(name="rate_user_long_view", role="user", kind="number", transform="logit"),
        Feature(name="user_gap_h", role="context", kind="bucket", buckets=4, dim=20),
        *history(length, {"hist_item_id": "item"}, TASKS, dim=24),
        personalization_code("user_views", dim=28, edges=AVC_EDGES[:5]),
    )


def sample_base() -> RunConfig:
    """A tiny base over the columns of `samples.write_samples`."""
    config = tiny(
        RunConfig(
            name="base",
            tasks={"long_view": Binary(), "like": Binary(weight=0.6)},
            features=sample_features(),
            tables=(
                Table(name="user", rows=64, dim=4, mapping="vocabulary", min_count=2),
                Table(name="item", rows=72, dim=8, mapping="identity"),
                Table(name="tag", rows=32, dim=12),
            ),
        )
    )
    model = replace(config.model, heads=5, head_dim=6, experts=3, gate_hidden=7, tower_hidden=(9,))
    return replace(config, model=model)


def growing(rows: int = 64, mapping: IdMapping = "growing") -> RunConfig:
    """`sample_base` with growing (or managed) tables of users, of items, which histories read too, and of tags."""
    config = sample_base()
    sizes = {"user": rows, "item": rows + 8, "tag": 32}
    tables = tuple(Table(name=t.name, rows=sizes[t.name], dim=t.dim, mapping=mapping) for t in config.tables)
    return replace(config, tables=tables)


def changed(config: RunConfig, name: str, **fields: object) -> RunConfig:
    """The config with other settings of a hook that is on."""
    hooks = tuple(replace(hook, **fields) if hook.short_name() == name else hook for hook in config.hooks)
    assert hooks != config.hooks
    return replace(config, hooks=hooks)


def with_optim(config: RunConfig, *, tables: Fields = NONE, dense: Fields = NONE, **fields: object) -> RunConfig:
    """The config with other settings of its optimizers."""
    o = config.optim
    optim = replace(o, tables=replace(o.tables, **tables), dense=replace(o.dense, **dense), **fields)
    return replace(config, optim=optim)


def hook_of(config: RunConfig, name: str) -> Hook:
    """A hook that is on."""
    return next(hook for hook in config.hooks if hook.short_name() == name)
