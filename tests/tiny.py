"""Small configs for tests: a whole base of its own features, and `tiny`, which shrinks any arm.

Sizes, weights and lengths that the program tells apart differ here, so that one in the place of another fails a test.
"""

from dataclasses import replace

from samples import TASKS

from coldrank.configs.base import AVC_EDGES, counts, history, personalization_code
from coldrank.models.features import Feature, Mapping, Table
from coldrank.train.config import RunConfig
from coldrank.train.hooks.config import MetaCFConfig
from coldrank.train.hooks.mwuf_config import MwufConfig
from coldrank.train.hooks.pam_config import PamConfig


def tiny(config: RunConfig) -> RunConfig:
    """The same arm with small widths and batches. A two-tower arm has no ranker to shrink."""
    m = config.model
    narrow = {"expert_hidden": _narrow(m.expert_hidden), "tower_hidden": _narrow(m.tower_hidden)}
    model = replace(m, heads=2, head_dim=4, experts=2, gate_hidden=4, **narrow)
    data = replace(config.data, batch_size=64, eval_batch_size=48, shuffle_rows=256, prefetch=2)
    if config.two_tower is not None:
        model = m
    return replace(config, model=model, data=data, train=replace(config.train, log_every=5, threads=1))


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
            tasks={"long_view": 1.0, "like": 0.6},
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


def growing(rows: int = 64, mapping: Mapping = "growing") -> RunConfig:
    """`sample_base` with growing (or managed) tables: users; items, which histories read as well; tags, which are many-valued."""
    config = sample_base()
    sizes = {"user": rows, "item": rows + 8, "tag": 32}
    tables = tuple(Table(name=t.name, rows=sizes[t.name], dim=t.dim, mapping=mapping) for t in config.tables)
    return replace(config, tables=tables)


def only(config: RunConfig, *hooks: str) -> RunConfig:
    """The config with these hooks on; the settings of the others, which would have no effect, are their defaults."""
    plain = {"metacf": MetaCFConfig(), "mwuf": MwufConfig(), "pam": PamConfig()}
    return replace(config, hooks=hooks, **{name: c for name, c in plain.items() if name not in hooks})
