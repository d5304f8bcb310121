"""A small retrieval model for tests."""

from dataclasses import replace

from tiny import growing

from coldrank.models.features import Feature
from coldrank.models.heads import Binary
from coldrank.models.two_tower import TwoTower
from coldrank.train.config import RunConfig
from coldrank.train.hooks.pam import Pam

DAYS = [f"2022-05-0{d}" for d in range(1, 5)]
# Views in the samples reach from 0 to 199.
PAM = Pam(cuts=(20, 60, 120, 500), cold=1, behaviour=("item_id",), rate=0.1)


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
    return replace(config, tasks={"long_view": Binary()}, features=features, model=TwoTower(), data=data)


def with_events() -> RunConfig:
    """The same with a sequence, which the towers do not read: a hook has to, MetaCF with its `items="events"`."""
    config = two_tower()
    signals = ("hist_long_view", "hist_like")
    events = (
        Feature(
            name="events", column="hist_item_id", kind="id", table="item", role="sequence", sequence="events", length=6
        ),
        Feature(name="signals", columns=signals, kind="signals", dim=4, role="sequence", sequence="events", length=6),
    )
    return replace(config, features=(*config.features, *events))


def with_pam(*, same_user: bool = True, **pam: object) -> RunConfig:
    """PAM on it, streamed from the second of `DAYS` on."""
    plain = two_tower()
    plain = replace(plain, model=TwoTower(same_user=same_user))
    train = replace(plain.train, mode="periods", first_period=DAYS[1], look_back=())
    return replace(plain, hooks=(replace(PAM, **pam),), train=train)
