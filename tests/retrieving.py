"""A small retrieval model for tests."""

from dataclasses import replace

from tiny import growing

from coldrank.models.features import Feature
from coldrank.models.two_tower import TwoTowerConfig
from coldrank.train.config import RunConfig


def two_tower(rows: int = 64) -> RunConfig:
    """A tiny retrieval model over the columns of `samples.write_samples`."""
    config = growing(rows)
    features = (
        Feature(name="user_id", role="user", kind="id", table="user"),
        Feature(name="hist_item_id", role="user", kind="id", table="item", many=True),
        Feature(name="rate_user_long_view", role="user", kind="number", transform="logit"),
        Feature(name="item_id", role="item", kind="id", table="item"),
        Feature(name="item_tags", role="item", kind="id", table="tag", many=True),
    )
    data = replace(config.data, order="time")
    return replace(config, tasks={"long_view": 1.0}, features=features, two_tower=TwoTowerConfig(), data=data)
